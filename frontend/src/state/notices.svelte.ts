/** Short words at the edge of the screen: something was done and can be undone, or something went wrong. */

import { ApiError } from '../api/client'

export type Notice = {
  id: number
  kind: 'note' | 'error'
  text: string
  hint: string | null
  actions: { label: string; run: () => void }[]
  /** Whether it only says that the server could not be reached. */
  unreached?: boolean
}

const SECONDS = 8

class Notices {
  list = $state<Notice[]>([])
  #last = 0

  show(text: string, actions: Notice['actions'] = []): void {
    const id = this.#add({ kind: 'note', text, hint: null, actions })
    setTimeout(() => this.dismiss(id), SECONDS * 1000)
  }

  error(problem: unknown): void {
    const text = problem instanceof Error ? problem.message : String(problem)
    const { hint, status } = problem instanceof ApiError ? problem : { hint: null, status: null }
    this.#add({ kind: 'error', text, hint, actions: [], unreached: status === 0 })
  }

  /** The server can be reached again. */
  reached(): void {
    this.list = this.list.filter((each) => !each.unreached)
  }

  #add(notice: Omit<Notice, 'id'>): number {
    const id = ++this.#last
    this.list = [...this.list.slice(-2), { id, ...notice }]
    return id
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
