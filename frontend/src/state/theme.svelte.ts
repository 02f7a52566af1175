/** Light or dark: what the system prefers, until the switch is used. */

export type Choice = 'system' | 'light' | 'dark'

const NEXT: Record<Choice, Choice> = { system: 'light', light: 'dark', dark: 'system' }

class Theme {
  choice = $state<Choice>('system')

  constructor() {
    const kept = localStorage.getItem('sfumato.theme')
    if (kept === 'light' || kept === 'dark') this.choice = kept
    this.#apply()
  }

  next(): void {
    this.choice = NEXT[this.choice]
    if (this.choice === 'system') localStorage.removeItem('sfumato.theme')
    else localStorage.setItem('sfumato.theme', this.choice)
    this.#apply()
  }

  #apply(): void {
    if (this.choice === 'system') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = this.choice
  }
}

export const theme = new Theme()
