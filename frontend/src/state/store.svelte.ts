/** What the server knows, as this tab knows it: jobs, their order, live previews and pictures, kept by events. */

import { SvelteMap } from 'svelte/reactivity'
import { api } from '../api/client'
import type { Job, Picture, Progress, State } from '../api/types'

const ENDED: State[] = ['done', 'failed', 'cancelled']
const SOON = 150 // ms after the last word of a change, before the order is asked for

class Store {
  jobs = new SvelteMap<string, Job>()
  pictures = new SvelteMap<string, Picture>()
  progress = new SvelteMap<string, Progress>()
  previews = new SvelteMap<string, string>()
  /** Grows when a picture comes or goes, for the grids that hold only a part of all of them. */
  arrivals = $state(0)
  #asking = 0

  running = $derived([...this.jobs.values()].filter((job) => job.state === 'running'))
  queued = $derived(
    [...this.jobs.values()]
      .filter((job) => job.state === 'queued')
      .sort((a, b) => (a.position ?? Infinity) - (b.position ?? Infinity)),
  )
  busy = $derived(this.running.length + this.queued.length)

  job(job: Job): void {
    const known = this.jobs.get(job.id)
    // answers and events cross: what has ended does not run again under the same attempt
    if (known && ENDED.includes(known.state) && !ENDED.includes(job.state) && job.attempt <= known.attempt) return
    if (known?.state === 'running' && job.state === 'queued' && job.attempt < known.attempt) return
    if (known?.state === 'queued' && job.state === 'queued' && job.position === null) {
      job = { ...job, position: known.position } // events do not know the order; it may be another
      clearTimeout(this.#asking)
      this.#asking = window.setTimeout(() => this.refresh().catch(() => undefined), SOON)
    }
    this.jobs.set(job.id, job)
    for (const picture of job.pictures) this.picture(picture)
    if (ENDED.includes(job.state)) {
      this.progress.delete(job.id)
      this.previews.delete(job.id)
    } else if (job.progress) this.progress.set(job.id, { ...this.progress.get(job.id), ...job.progress })
    if (job.state === 'queued') {
      this.previews.delete(job.id) // of an attempt before this one
      this.progress.delete(job.id)
    }
  }

  picture(picture: Picture): void {
    const known = this.pictures.get(picture.id)
    if (!known || known.deleted !== picture.deleted) this.arrivals++
    this.pictures.set(picture.id, picture)
    const job = this.jobs.get(picture.job ?? '')
    if (job && !job.pictures.some((each) => each.id === picture.id))
      this.jobs.set(job.id, { ...job, pictures: [...job.pictures, picture].sort((a, b) => a.index - b.index) })
  }

  stepped(id: string, progress: Progress): void {
    this.progress.set(id, progress)
  }

  preview(id: string, image: string): void {
    if (!ENDED.includes(this.jobs.get(id)?.state ?? 'queued')) this.previews.set(id, image)
  }

  /** A job was taken off the list, or a picture was put into the bin. */
  gone({ job, picture }: { job?: string; picture?: string }): void {
    if (job) this.jobs.delete(job)
    const known = picture ? this.pictures.get(picture) : undefined
    if (known) this.pictures.set(known.id, { ...known, deleted: true })
    this.arrivals++
  }

  /** The queue as it is now; what this tab believes to wait or run and is not there any more is asked for. */
  async refresh(): Promise<void> {
    const queue = await api.queue()
    const present = [...queue.running, ...queue.queued]
    const ids = new Set(present.map((job) => job.id))
    const lost = [...this.jobs.values()].filter((job) => !ENDED.includes(job.state) && !ids.has(job.id))
    present.forEach((job) => this.job(job))
    await Promise.all(lost.map((job) => this.load(job.id)))
    this.arrivals++
  }

  async load(id: string): Promise<void> {
    try {
      this.job(await api.job(id))
    } catch {
      this.jobs.delete(id)
    }
  }

  isEnded(job: Job): boolean {
    return ENDED.includes(job.state)
  }
}

export const store = new Store()
