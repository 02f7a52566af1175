/** What the Create form holds: the request that is being written, its start picture, and what was wrong with it. */

import { ApiError } from '../api/client'
import type { Lora, Model, Reading, Request } from '../api/types'
import { catalogue } from './catalogue.svelte'
import { OF_START, OWN, PASSING, PLACED, PLAIN, STEERING } from './fields'
import { whole } from './whole'

/** A picture that the server has: an upload or one of its own. `url` shows it. */
export type Start = { id: string; width: number; height: number; url: string }

type Kept = {
  prompt: string
  negative: string
  model: string
  width: number | null
  height: number | null
  count: number
  /** Digits; empty is a new one each time. */
  seed: string
  steps: number | null
  guidance: number | null
  sampler: string
  spacing: string
  strength: number
  start: Start | null
  loras: Lora[]
  /** All other fields of the request, by their names. */
  others: Record<string, unknown>
}

const BLANK: Kept = {
  prompt: '',
  negative: '',
  model: '',
  width: null,
  height: null,
  count: 1,
  seed: '',
  steps: null,
  guidance: null,
  sampler: '',
  spacing: '',
  strength: 0.6,
  start: null,
  loras: [],
  others: {},
}

const KEY = 'sfumato.draft'

function kept(): Kept {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Kept>
    return { ...BLANK, ...found, seed: String(found.seed ?? '') }
  } catch {
    return { ...BLANK }
  }
}

class Draft {
  form = $state<Kept>(kept())
  errors = $state<Record<string, string>>({})
  model = $derived(catalogue.model(this.form.model))
  /** The size of a request that names none: the model's; with a start picture its shape, at about the model's area. */
  suited = $derived(this.form.start ? fitted(this.form.start, this.model) : (this.model?.defaults ?? null))
  width = $derived(this.form.width ?? this.suited?.width ?? null)
  height = $derived(this.form.height ?? this.suited?.height ?? null)

  constructor() {
    $effect.root(() => {
      $effect(() => localStorage.setItem(KEY, JSON.stringify(this.form)))
    })
  }

  /** What a field among the others says. */
  other<T>(name: string): T | undefined {
    return this.form.others[name] as T | undefined
  }

  /** The objects in a list among the others. What else is in it only the server has words for. */
  parts<T extends object>(name: string): T[] {
    return this.list<T>(name).filter((each) => typeof each === 'object' && each !== null)
  }

  /** The texts in a list among the others. */
  names(name: string): string[] {
    return this.list<string>(name).filter((each) => typeof each === 'string')
  }

  /** An object among the others. */
  part<T extends object>(name: string): T | null {
    const found = this.form.others[name]
    return typeof found === 'object' && found !== null && !Array.isArray(found) ? (found as T) : null
  }

  /** A list among the others. */
  list<T>(name: string): T[] {
    const found = this.form.others[name]
    return Array.isArray(found) ? (found as T[]) : []
  }

  /** Give a field among the others a value; nothing, an empty text and an empty list take it out. */
  put(name: string, value: unknown): void {
    const empty = value === null || value === undefined || value === '' || (Array.isArray(value) && !value.length)
    const { [name]: _, ...rest } = this.form.others
    if (!empty) this.form.others[name] = value
    else if (name in this.form.others) this.form.others = rest
  }

  /** What of this form may steer a picture on the canvas as well. */
  steering(): Partial<Request> {
    const request = this.request()
    return Object.fromEntries(Object.keys(STEERING).flatMap((name) => (name in request ? [[name, request[name]]] : [])))
  }

  /** Those among the others that have no place in the form. */
  unplaced(): [name: string, value: unknown][] {
    return Object.entries(this.form.others).filter(([name]) => !PLACED.includes(name))
  }

  #awaited = new Set<Promise<unknown>>()

  /** Something that is on its way into the form. */
  awaits<T>(promise: Promise<T>): Promise<T> {
    this.#awaited.add(promise)
    return promise.finally(() => this.#awaited.delete(promise))
  }

  /** The request once all that is on its way has come. */
  async whole(): Promise<Request> {
    await Promise.allSettled(this.#awaited)
    return this.request()
  }

  request(): Request {
    const { form } = this
    const request: Request = { ...form.others, prompt: form.prompt, count: form.count }
    if (form.loras.length) request.loras = form.loras.map((lora) => ({ ...lora }))
    if (form.negative.trim()) request.negative_prompt = form.negative
    if (form.model) request.model = form.model
    if (this.width !== null && this.height !== null) Object.assign(request, { width: this.width, height: this.height })
    if (form.seed.trim()) request.seed = form.seed.trim()
    for (const name of ['steps', 'guidance'] as const) {
      const value = form[name]
      if (value !== null) request[name] = value
    }
    for (const name of ['sampler', 'spacing'] as const) if (form[name]) request[name] = form[name]
    if (form.start) Object.assign(request, { image: form.start.id, strength: form.strength })
    else for (const name of OF_START) delete request[name] // they wait for the next one
    return request
  }

  /** Take over what a request says; fields that it does not have keep their place. */
  take(request: Request): void {
    const { form } = this
    const prompt = Array.isArray(request.prompt) ? request.prompt[0] : request.prompt
    if (prompt !== undefined) form.prompt = prompt
    form.negative = request.negative_prompt ?? ''
    for (const name of ['width', 'height', 'steps', 'guidance'] as const) form[name] = number(request[name]) ?? form[name]
    form.seed = request.seed ?? ''
    form.sampler = this.#known(request.sampler, catalogue.samplers.value?.samplers.map((each) => each.name))
    form.spacing = this.#known(request.spacing, catalogue.samplers.value?.spacings)
    if (typeof request.strength === 'number') form.strength = request.strength
    form.loras = Array.isArray(request.loras) ? (request.loras as Lora[]) : []
    form.others = whole(others(request))
    const named = catalogue.models.value?.find((each) => each.name === request.model)
    if (named) form.model = named.default ? '' : named.name // as the form itself says it
    this.errors = {}
  }

  /** Become a request, whole, that begins from a picture or from none: what it does not say is as in a new form. */
  become(request: Request, start: Start | null): void {
    if (Array.isArray(request.prompt)) throw new Error('prompt is a list, and the form has a single one')
    if (request.model && !catalogue.models.value?.some((each) => each.name === request.model))
      throw new Error(`There is no model ${request.model}`)
    this.clear()
    this.take(request)
    const { count = 1, sampler = '', spacing = '' } = request // other tools' names too, which the server understands
    Object.assign(this.form, { start, count, sampler, spacing, others: whole(left(request)) })
  }

  takeReading(reading: Reading): void {
    this.take({ ...reading.request, count: undefined })
  }

  /** Put an error beside its field; true if it has one in this form. */
  fault(problem: unknown): boolean {
    if (!(problem instanceof ApiError) || !problem.field) return false
    const field = problem.field.split('.')[0] ?? problem.field
    if (!OWN.has(field) && !PLACED.includes(field)) return false
    this.errors = { [field]: problem.hint ? `${problem.message}. ${problem.hint}` : problem.message }
    return true
  }

  clear(): void {
    this.form = { ...BLANK }
    this.errors = {}
  }

  #known(name: string | undefined, names: string[] | undefined): string {
    return name && (!names || names.includes(name)) ? name : ''
  }
}

/** What of a request is said and is none of the form's own fields. */
function left(request: Request): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(request).filter(([name, value]) => value !== null && value !== undefined && !OWN.has(name)),
  )
}

/** The same without what belongs to one picture or is as it would be anyway. */
function others(request: Request): Record<string, unknown> {
  const plain = (name: string, value: unknown) => JSON.stringify(PLAIN[name]) === JSON.stringify(value)
  return Object.fromEntries(Object.entries(left(request)).filter(([name, value]) => !PASSING.includes(name) && !plain(name, value)))
}

const GRID = 8 // px: one latent cell

/** A picture's shape at about the area that a model draws at, on whole latent cells. */
function fitted(start: Start, model: Model | null): { width: number; height: number } | null {
  const size = model?.defaults
  if (!size) return null
  const scale = Math.sqrt((size.width * size.height) / (start.width * start.height))
  const side = (length: number) => Math.max(GRID, Math.round((length * scale) / GRID) * GRID)
  return { width: side(start.width), height: side(start.height) }
}

function number(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null
}

export const draft = new Draft()
