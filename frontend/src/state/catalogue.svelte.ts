/** What the server offers and seldom changes: models, samplers, the embedded model's words, its own state. */

import { api } from '../api/client'
import type { ControlFile, Model, Named, Preprocessors, Samplers, Style, System, Vocabulary } from '../api/types'

class Resource<T> {
  value = $state<T | null>(null)
  error = $state<string | null>(null)

  constructor(private readonly fetch: () => Promise<T>) {}

  /** Fetch it, if it is not here. */
  need(): void {
    if (this.value === null) void this.load()
  }

  async load(): Promise<void> {
    try {
      this.value = await this.fetch()
      this.error = null
    } catch (problem) {
      this.error = problem instanceof Error ? problem.message : String(problem)
    }
  }
}

class Catalogue {
  models = new Resource<Model[]>(async () => (await api.models()).models)
  samplers = new Resource<Samplers>(api.samplers)
  vocabulary = new Resource<Vocabulary>(api.vocabulary)
  system = new Resource<System>(api.system)
  // what is asked for when a part of the page needs it
  loras = new Resource<Named[]>(() => api.listed('loras'))
  embeddings = new Resource<Named[]>(() => api.listed('embeddings'))
  vaes = new Resource<Named[]>(() => api.listed('vaes'))
  upscalers = new Resource<Named[]>(() => api.listed('upscalers'))
  controls = new Resource<ControlFile[]>(api.controls)
  preprocessors = new Resource<Preprocessors>(api.preprocessors)
  styles = new Resource<Style[]>(api.styles)

  async load(): Promise<void> {
    await Promise.all([this.models, this.samplers, this.vocabulary, this.system].map((each) => each.load()))
  }

  model(name: string | null | undefined): Model | null {
    const list = this.models.value ?? []
    return list.find((each) => each.name === name) ?? list.find((each) => each.default) ?? list[0] ?? null
  }
}

export const catalogue = new Catalogue()

/** The names in a list of the server's, each once: an alias may have the name of a file. */
export function namesOf(list: Resource<{ name: string }[]>): string[] {
  return [...new Set((list.value ?? []).map((each) => each.name))]
}
