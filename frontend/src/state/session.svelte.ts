/** What was drawn in this tab, newest first, and which of it is looked at. Survives a reload of the tab. */

import { api } from '../api/client'
import type { Job, Picture, Request } from '../api/types'
import { store } from './store.svelte'

export type Item =
  | { kind: 'live'; key: string; job: Job }
  | { kind: 'picture'; key: string; job: Job; picture: Picture }
  | { kind: 'failed'; key: string; job: Job }

const KEY = 'sfumato.session'
const LONGEST = 60 // jobs

class Session {
  ids = $state<string[]>(JSON.parse(sessionStorage.getItem(KEY) ?? '[]') as string[])
  chosen = $state<string | null>(null)
  items = $derived(this.ids.flatMap((id) => this.#items(id)))
  /** The item looked at: the one chosen, else that of the newest job. */
  current = $derived(this.items.find((item) => item.key === this.chosen) ?? this.items[0] ?? null)
  lastSeed = $derived(this.items.find((item) => item.kind === 'picture')?.picture.seed ?? '')

  /** Load the jobs of before a reload. */
  async start(): Promise<void> {
    await Promise.all(this.ids.map((id) => store.load(id)))
  }

  /** Submit a request. Its result appears here. */
  async draw(request: Request, title?: string): Promise<Job> {
    const job = await api.submit(request, newKey(), title)
    this.add(job)
    return job
  }

  add(job: Job): void {
    store.job(job)
    this.ids = [job.id, ...this.ids.filter((id) => id !== job.id)].slice(0, LONGEST)
    this.chosen = null
    sessionStorage.setItem(KEY, JSON.stringify(this.ids))
  }

  choose(key: string): void {
    this.chosen = key
  }

  #items(id: string): Item[] {
    const job = store.jobs.get(id)
    if (!job) return []
    const pictures = job.pictures
      .map((each) => store.pictures.get(each.id) ?? each)
      .filter((picture) => !picture.deleted)
      .map((picture): Item => ({ kind: 'picture', key: picture.id, job, picture }))
    if (job.state === 'failed') return [{ kind: 'failed', key: id, job }, ...pictures]
    return store.isEnded(job) ? pictures : [{ kind: 'live', key: id, job }, ...pictures]
  }
}

/** A key that makes a repeated submission the same one. `randomUUID` is missing where the page is not on localhost. */
export function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

export const session = new Session()
