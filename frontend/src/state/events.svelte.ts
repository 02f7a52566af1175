/** The one event stream of this tab. The browser reconnects with Last-Event-ID; when it gives up, we begin anew. */

import { ROOT, parsed } from '../api/client'
import type { Job, Picture, Progress } from '../api/types'
import { catalogue } from './catalogue.svelte'
import { notices } from './notices.svelte'
import { store } from './store.svelte'

const PATIENCE = 700 // ms before a lost connection is worth a word
const LONGEST = 10_000 // ms between two attempts

class Events {
  /** Whether the stream is open; `lost` only after a moment, so that a blink is not shown. */
  status = $state<'connecting' | 'open' | 'lost'>('connecting')
  #source: EventSource | null = null
  #last = ''
  #wait = 500
  #lostTimer = 0

  start(): void {
    const after = this.#last ? `?after=${encodeURIComponent(this.#last)}` : ''
    const source = new EventSource(`${ROOT}/events${after}`)
    this.#source = source
    source.onopen = () => this.#opened()
    source.onerror = () => this.#failed(source)
    this.#on<Job>('job', (job) => store.job(job))
    this.#on<Progress & { job: string }>('progress', (progress) => store.stepped(progress.job, progress))
    this.#on<{ job: string; image: string }>('preview', ({ job, image }) => store.preview(job, image))
    this.#on<Picture>('picture', (picture) => store.picture(picture))
    this.#on<{ job?: string; picture?: string }>('deleted', (what) => store.gone(what))
    this.#on<unknown>('reset', () => void store.refresh().catch(() => undefined))
    this.#on<unknown>('models', () => void catalogue.models.load())
  }

  #on<T>(name: string, take: (data: T) => void): void {
    this.#source?.addEventListener(name, (event) => {
      const message = event as MessageEvent<string>
      if (message.lastEventId) this.#last = message.lastEventId
      take(parsed(message.data) as T)
    })
  }

  #opened(): void {
    clearTimeout(this.#lostTimer)
    this.#lostTimer = 0
    this.#wait = 500
    this.status = 'open'
    notices.reached()
    store.refresh().catch(() => undefined) // the next opening asks again
  }

  #failed(source: EventSource): void {
    if (!this.#lostTimer) this.#lostTimer = window.setTimeout(() => (this.status = 'lost'), PATIENCE)
    if (source.readyState !== EventSource.CLOSED) return // the browser tries again by itself
    source.close()
    setTimeout(() => this.start(), this.#wait)
    this.#wait = Math.min(this.#wait * 2, LONGEST)
  }
}

export const events = new Events()
