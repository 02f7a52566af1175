/** Which screen is shown: the hash of the address, so that back, forward and bookmarks work. */

export const SCREENS = ['create', 'canvas', 'history', 'queue', 'models'] as const
export type Screen = (typeof SCREENS)[number]

const TITLES: Record<Screen, string> = {
  create: 'Create',
  canvas: 'Canvas',
  history: 'History',
  queue: 'Queue',
  models: 'Models',
}

class Route {
  screen = $state<Screen>('create')
  argument = $state('')

  constructor() {
    this.#read()
    window.addEventListener('hashchange', () => this.#read())
  }

  title(screen: Screen): string {
    return TITLES[screen]
  }

  go(screen: Screen, argument = ''): void {
    location.hash = argument ? `#/${screen}/${argument}` : `#/${screen}`
  }

  #read(): void {
    const [name = '', ...rest] = location.hash.replace(/^#\/?/, '').split('/')
    this.screen = SCREENS.find((each) => each === name) ?? 'create'
    this.argument = decodeURIComponent(rest.join('/'))
    document.title = `${TITLES[this.screen]} · sfumato`
  }
}

export const route = new Route()
