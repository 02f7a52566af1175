/** Short words at the edge of the screen: something was done and can be undone, or something went wrong. */

import { ApiError } from '../api/client'

export type Notice = {
  id: number
  kind: 'note' | 'error'
  text: string
  hint: string | null
  actions: { label: string; run: () => void }[]
}

const SECONDS = 8

class Notices {
  list = $state<Notice[]>([])
  #last = 0

  show(text: string, actions: Notice['actions'] = [], kind: Notice['kind'] = 'note', hint: string | null = null): void {
    const id = ++this.#last
    this.list = [...this.list.slice(-2), { id, kind, text, hint, actions }]
    if (kind === 'note') setTimeout(() => this.dismiss(id), SECONDS * 1000)
  }

  error(problem: unknown): void {
    const hint = problem instanceof ApiError ? problem.hint : null
    this.show(problem instanceof Error ? problem.message : String(problem), [], 'error', hint)
  }

  dismiss(id: number): void {
    this.list = this.list.filter((each) => each.id !== id)
  }
}

export const notices = new Notices()

/** Runs what may fail and says so in a notice. */
export async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (problem) {
    notices.error(problem)
    return undefined
  }
}
