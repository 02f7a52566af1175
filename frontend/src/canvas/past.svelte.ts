/** What was, and can be again. */

const MOMENTS = 60 // that can be undone

export class Past<T> {
  #past = $state.raw<T[]>([])
  #future = $state.raw<T[]>([])

  canUndo = $derived(this.#past.length > 0)
  canRedo = $derived(this.#future.length > 0)

  /** Keep a moment before it changes. */
  remember(moment: T): void {
    this.#past = [...this.#past.slice(1 - MOMENTS), moment]
    this.#future = []
  }

  /** The moment before this one. */
  undo(now: T): T | undefined {
    const last = this.#past.at(-1)
    if (last === undefined) return undefined
    this.#future = [...this.#future, now]
    this.#past = this.#past.slice(0, -1)
    return last
  }

  /** The moment that was undone last. */
  redo(now: T): T | undefined {
    const next = this.#future.at(-1)
    if (next === undefined) return undefined
    this.#past = [...this.#past, now]
    this.#future = this.#future.slice(0, -1)
    return next
  }
}
