/** The pictures of the server, newest first, page by page as they are scrolled to. */

import { api } from '../api/client'
import type { Picture } from '../api/types'
import { store } from '../state/store.svelte'

const PAGE = 200 // what is asked for first, and again when something comes or goes
const FAR = 500 // at a time on the way to a place further back: the most that the server gives

class Gallery {
  search = $state('')
  favourites = $state(false)
  deleted = $state(false)
  total = $state(0)
  loaded = $state(false)
  error = $state<string | null>(null)
  #list = $state.raw<Picture[]>([])
  #next: string | null = null
  #turn = 0
  #loading = false

  /** What is shown: as fetched, with what events have said since. */
  list = $derived(this.#list.map((each) => store.pictures.get(each.id) ?? each).filter((each) => this.#belongs(each)))

  /** Begin anew, with the filters as they are. */
  async begin(): Promise<void> {
    const turn = ++this.#turn
    try {
      const page = await api.pictures({ ...this.#filter(), limit: PAGE })
      if (turn !== this.#turn) return
      this.#take(page.pictures)
      this.#next = page.next
      this.total = page.total ?? page.pictures.length
      this.error = null
    } catch (problem) {
      if (turn === this.#turn) this.error = problem instanceof Error ? problem.message : String(problem)
    } finally {
      if (turn === this.#turn) this.loaded = true
    }
  }

  /** Something came or went: ask for the newest again and keep the older ones that are here. */
  async renew(): Promise<void> {
    const turn = this.#turn
    const page = await api.pictures({ ...this.#filter(), limit: PAGE })
    if (turn !== this.#turn) return
    const fresh = new Set(page.pictures.map((each) => each.id))
    const last = page.pictures.at(-1)
    const older = page.next && last ? this.#list.filter((each) => !fresh.has(each.id) && each.created <= last.created) : []
    this.#take([...page.pictures, ...older])
    if (!older.length) this.#next = page.next
    this.total = page.total ?? this.#list.length
  }

  /** Fetch pages until `count` pictures are here, or all. */
  async reach(count: number): Promise<void> {
    if (this.#loading) return
    this.#loading = true
    const turn = this.#turn
    try {
      while (this.#next && this.#list.length < count && turn === this.#turn) {
        const page = await api.pictures({ ...this.#filter(), limit: FAR, cursor: this.#next })
        if (turn !== this.#turn) return
        this.#next = page.next
        this.#take([...this.#list, ...page.pictures])
      }
    } catch {
      // the next scroll asks again
    } finally {
      this.#loading = false
    }
  }

  #take(list: Picture[]): void {
    for (const each of list) if (store.pictures.has(each.id)) store.pictures.set(each.id, { ...store.pictures.get(each.id), ...each })
    this.#list = list
  }

  #filter() {
    return {
      search: this.search.trim() || undefined,
      favourite: this.favourites || undefined,
      deleted: this.deleted || undefined,
    }
  }

  #belongs(picture: Picture): boolean {
    return Boolean(picture.deleted) === this.deleted && (!this.favourites || picture.favourite)
  }
}

export const gallery = new Gallery()
