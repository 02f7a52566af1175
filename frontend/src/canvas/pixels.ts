/** Pictures and masks as files and back, in the page. */

import { bitmap } from '../state/bitmap'
import { blank, grey, type Mask } from './mask'

export type Sides = { left: number; top: number; right: number; bottom: number }

function context(width: number, height: number): [HTMLCanvasElement, CanvasRenderingContext2D] {
  const canvas = document.createElement('canvas')
  canvas.width = width
  canvas.height = height
  return [canvas, canvas.getContext('2d') as CanvasRenderingContext2D]
}

function png(canvas: HTMLCanvasElement): Promise<Blob> {
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('The picture is too large for this browser'))), 'image/png'),
  )
}

/** A mask as a grey PNG of its own size. */
export function maskFile(mask: Mask): Promise<Blob> {
  const [canvas, draw] = context(mask.width, mask.height)
  draw.putImageData(grey(mask), 0, 0)
  return png(canvas)
}

/** The mask in a grey picture. */
export async function maskFrom(url: string): Promise<Mask> {
  const picture = await bitmap(url)
  const [, draw] = context(picture.width, picture.height)
  draw.drawImage(picture, 0, 0)
  const { data } = draw.getImageData(0, 0, picture.width, picture.height)
  const mask = blank(picture.width, picture.height)
  for (let i = 0; i < mask.data.length; i++) mask.data[i] = data[4 * i]!
  return mask
}

/** The picture with room at its sides, filled by stretching its edges, as a PNG. */
export function padded(picture: ImageBitmap, { left, top, right, bottom }: Sides): Promise<Blob> {
  const { width, height } = picture
  const [canvas, draw] = context(width + left + right, height + top + bottom)
  const columns: [number, number, number, number][] = [
    [0, 1, 0, left],
    [0, width, left, width],
    [width - 1, 1, left + width, right],
  ]
  const rows: [number, number, number, number][] = [
    [0, 1, 0, top],
    [0, height, top, height],
    [height - 1, 1, top + height, bottom],
  ]
  for (const [sx, sw, x, w] of columns)
    for (const [sy, sh, y, h] of rows) if (w && h) draw.drawImage(picture, sx, sy, sw, sh, x, y, w, h)
  return png(canvas)
}

/** White where a padded picture is new, fading into the old part over some pixels, so that there is no seam. */
export function paddedMask(old: Mask, { left, top, right, bottom }: Sides, fade: number): Mask {
  const mask = blank(old.width + left + right, old.height + top + bottom, 255)
  for (let y = 0; y < old.height; y++) {
    for (let x = 0; x < old.width; x++) {
      // how deep in the old part, seen from the nearest side that grows
      const depth = Math.min(
        left ? x + 0.5 : Infinity,
        top ? y + 0.5 : Infinity,
        right ? old.width - x - 0.5 : Infinity,
        bottom ? old.height - y - 0.5 : Infinity,
      )
      const faded = Math.round(255 * Math.max(0, 1 - depth / fade))
      mask.data[(y + top) * mask.width + x + left] = Math.max(faded, old.data[y * old.width + x]!)
    }
  }
  return mask
}
