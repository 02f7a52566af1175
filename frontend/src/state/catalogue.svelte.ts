/** What the server offers and seldom changes: models, samplers, the embedded model's words, its own state. */

import { api } from '../api/client'
import type { Model, Samplers, System, Vocabulary } from '../api/types'

class Resource<T> {
  value = $state<T | null>(null)
  error = $state<string | null>(null)

  constructor(private readonly fetch: () => Promise<T>) {}

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

  async load(): Promise<void> {
    await Promise.all([this.models, this.samplers, this.vocabulary, this.system].map((each) => each.load()))
  }

  model(name: string | null | undefined): Model | null {
    const list = this.models.value ?? []
    return list.find((each) => each.name === name) ?? list.find((each) => each.default) ?? list[0] ?? null
  }
}

export const catalogue = new Catalogue()
