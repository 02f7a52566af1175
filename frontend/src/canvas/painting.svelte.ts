/** What lies on the canvas: a picture, a mask over it, what was done to them, and the candidates for what comes next. */

import { api, fileOf } from '../api/client'
import type { Job, Picture, Request } from '../api/types'
import { catalogue } from '../state/catalogue.svelte'
import { draft } from '../state/draft.svelte'
import { requestOf } from '../state/pictures'
import { newKey } from '../state/session.svelte'
import { store } from '../state/store.svelte'
import { blank, copy, inverted, isEmpty, type Mask } from './mask'
import { bitmap } from '../state/bitmap'
import { Past } from './past.svelte'
import { maskFile, maskFrom, padded, paddedMask, type Sides } from './pixels'

/** A picture that the server has, with its pixels here. */
export type Base = { id: string; url: string; width: number; height: number; pixels: ImageBitmap }
type Moment = { base: Base; mask: Mask; jobs: string[] }
type Kept = { id: string; url: string; mask: string; jobs: string[] }

const KEY = 'sfumato.canvas'
const FADE = 32 // px, and at most a quarter of the side: how far an extension fades into the picture
const EXTENDED = 0.8 // the strength for extensions: the edge that was drawn out still guides what comes

class Painting {
  base = $state.raw<Base | null>(null)
  /** Changed in place by strokes; `version` tells when. */
  mask = $state.raw<Mask>(blank(1, 1))
  version = $state(0)
  filled = $state(false)
  jobs = $state<string[]>([])
  discarded = $state<string[]>([])
  /** The candidate looked at. */
  shown = $state<string | null>(null)
  settings = $state({
    ...{ prompt: '', negative: '', strength: 1, soft: 0, count: 3, near: false, padding: 32 },
    /** What the request's `masked_content`, `masking` and what grey is in the mask are; empty is what suits. */
    ...{ content: '', masking: '', grey: '' },
    /** The numbers of soft inpainting, where grey is that; these are the request's own. */
    greyed: { preservation_strength: 0.5, schedule_bias: 1, transition_contrast_boost: 4 },
    /** Whether what steers a picture on Create counts here. */
    steered: false,
  })
  #past = new Past<Moment>()

  running = $derived(
    this.jobs.map((id) => store.jobs.get(id)).filter((job): job is Job => job !== undefined && !store.isEnded(job)),
  )
  failed = $derived(this.jobs.map((id) => store.jobs.get(id)).find((job) => job?.state === 'failed'))
  candidates = $derived(
    this.jobs
      .flatMap((id) => store.jobs.get(id)?.pictures ?? [])
      .map((picture) => store.pictures.get(picture.id) ?? picture)
      .filter((picture) => !picture.deleted && !this.discarded.includes(picture.id)),
  )
  candidate = $derived(this.candidates.find((picture) => picture.id === this.shown) ?? null)

  async open(picture: Picture): Promise<void> {
    await this.#place(picture.sha256, picture.file)
    const request = await requestOf(picture)
    this.settings.prompt = typeof request.prompt === 'string' ? request.prompt : picture.prompt
    this.settings.negative = request.negative_prompt ?? ''
  }

  async openFile(file: Blob): Promise<void> {
    const upload = await api.upload(file)
    await this.#place(upload.id, fileOf(upload.id))
    const prompt = upload.metadata?.request.prompt
    if (typeof prompt === 'string') this.settings.prompt = prompt
  }

  /** What was here before the page was loaded again. */
  async resume(): Promise<void> {
    const text = sessionStorage.getItem(KEY)
    if (!text || this.base) return
    const kept = JSON.parse(text) as Kept
    try {
      const pixels = await bitmap(kept.url)
      this.base = { id: kept.id, url: kept.url, width: pixels.width, height: pixels.height, pixels }
      this.mask = await maskFrom(kept.mask)
      this.#changed()
      await Promise.all(kept.jobs.map((id) => store.load(id)))
      this.jobs = kept.jobs
    } catch {
      sessionStorage.removeItem(KEY) // the picture is not there any more
    }
  }

  async #place(id: string, url: string): Promise<void> {
    const pixels = await bitmap(url)
    if (this.base) this.remember()
    this.base = { id, url, width: pixels.width, height: pixels.height, pixels }
    this.mask = blank(pixels.width, pixels.height)
    this.jobs = []
    this.shown = null
    this.#suit()
    this.#changed()
  }

  /** A picture larger than the model draws is worked at near the mask alone. */
  #suit(): void {
    const size = catalogue.model(draft.form.model)?.defaults
    if (this.base && size) this.settings.near = this.base.width * this.base.height > size.width * size.height
  }

  get canUndo(): boolean {
    return this.#past.canUndo
  }

  get canRedo(): boolean {
    return this.#past.canRedo
  }

  /** Keep the moment before a change, so that it can come back. */
  remember(): void {
    if (this.base) this.#past.remember(this.#moment(this.base))
  }

  changed(): void {
    this.#changed()
  }

  undo(): void {
    if (this.base) this.#restore(this.#past.undo(this.#moment(this.base)))
  }

  redo(): void {
    if (this.base) this.#restore(this.#past.redo(this.#moment(this.base)))
  }

  fill(value: 0 | 255): void {
    this.remember()
    this.mask = blank(this.mask.width, this.mask.height, value)
    this.#changed()
  }

  invert(): void {
    this.remember()
    this.mask = inverted(this.mask)
    this.#changed()
  }

  /** The last extension, when it is done or has failed. */
  #extended: Promise<unknown> = Promise.resolve()

  /** Make the picture larger at its sides, after what it was extended by before; the new part is masked. */
  extend(sides: Sides): Promise<void> {
    const extending = this.#extended.then(() => this.#extend(sides))
    this.#extended = extending.catch(() => undefined)
    return extending
  }

  /** Once what lies here is as large as it was asked to be. */
  settled(): Promise<unknown> {
    return this.#extended
  }

  async #extend(sides: Sides): Promise<void> {
    const { base } = this
    if (!base) return
    const upload = await api.upload(await padded(base.pixels, sides))
    const url = fileOf(upload.id)
    const pixels = await bitmap(url)
    if (this.base !== base) return // another picture has come meanwhile
    this.remember()
    this.mask = paddedMask(this.mask, sides, Math.min(FADE, base.width / 4, base.height / 4))
    this.settings.strength = Math.min(this.settings.strength, EXTENDED)
    this.base = { id: upload.id, url, width: pixels.width, height: pixels.height, pixels }
    this.shown = null
    this.jobs = []
    this.#suit()
    this.#changed()
  }

  /** Have the masked part drawn. */
  async draw(model: string | undefined): Promise<void> {
    const { base, settings } = this
    if (!base) return
    const mask = await api.upload(await maskFile(this.mask))
    const request: Request = {
      ...(settings.steered ? draft.steering() : {}),
      prompt: settings.prompt,
      image: base.id,
      mask: mask.id,
      strength: settings.strength,
      count: settings.count,
    }
    // near the mask: cut out, drawn at the model's own size, put back
    if (settings.near) Object.assign(request, { masked_only: true, padding: settings.padding })
    else Object.assign(request, { width: base.width, height: base.height })
    if (settings.content) request.masked_content = settings.content
    if (settings.masking) request.masking = settings.masking
    if (settings.grey === 'differential') request.differential = true
    if (settings.grey === 'soft_inpainting') request.soft_inpainting = { ...settings.greyed }
    if (settings.negative.trim()) request.negative_prompt = settings.negative
    if (settings.soft) request.mask_blur = settings.soft
    if (model) request.model = model
    const job = await api.submit(request, newKey())
    store.job(job)
    this.jobs = [job.id, ...this.jobs]
    this.#keep()
  }

  async accept(picture: Picture): Promise<void> {
    const pixels = await bitmap(picture.file)
    this.remember()
    this.base = { id: picture.sha256, url: picture.file, width: pixels.width, height: pixels.height, pixels }
    this.mask = blank(pixels.width, pixels.height)
    this.jobs = []
    this.shown = null
    this.#changed()
  }

  discard(picture: Picture): void {
    const at = this.candidates.findIndex((each) => each.id === picture.id)
    this.discarded = [...this.discarded, picture.id]
    if (this.shown) this.shown = this.candidates[Math.min(at, this.candidates.length - 1)]?.id ?? null
  }

  #moment(base: Base): Moment {
    return { base, mask: copy(this.mask), jobs: [...this.jobs] }
  }

  #restore(moment: Moment | undefined): void {
    if (!moment) return
    if (moment.base !== this.base) {
      this.base = moment.base
      this.jobs = moment.jobs // its candidates; those of another picture are none of it
      this.#suit()
    }
    this.mask = copy(moment.mask)
    this.shown = null
    this.#changed()
  }

  #changed(): void {
    this.version++
    this.filled = !isEmpty(this.mask)
    this.#keep()
  }

  #timer = 0
  #keep(): void {
    clearTimeout(this.#timer)
    this.#timer = window.setTimeout(async () => {
      const { base } = this
      if (!base) return
      const mask = await asUrl(await maskFile(this.mask))
      const kept: Kept = { id: base.id, url: base.url, mask, jobs: [...this.jobs] }
      try {
        sessionStorage.setItem(KEY, JSON.stringify(kept))
      } catch {
        sessionStorage.removeItem(KEY) // a mask too large to keep: a reload begins anew
      }
    }, 300)
  }
}

function asUrl(blob: Blob): Promise<string> {
  return new Promise((resolve) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result as string)
    reader.readAsDataURL(blob)
  })
}

export const painting = new Painting()
