import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// The page is committed, so that users need no Node: names carry the content's hash, and nothing else may vary.
export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: {
    outDir: '../src/sfumato/server/web',
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's policy allows no inline script or style
    modulePreload: { polyfill: false },
    target: 'es2022',
  },
  server: {
    proxy: { '/sfumato': 'http://127.0.0.1:7860' },
  },
})
