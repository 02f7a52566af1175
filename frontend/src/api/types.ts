/** What `/sfumato/v1` says, as far as the studio reads it. */

export type State = 'queued' | 'running' | 'done' | 'failed' | 'cancelled'

/** Up to 2^64 - 1, which a number of the browser does not hold: seeds are texts of digits in the page. */
export type Seed = string

export type Request = {
  prompt?: string | string[]
  negative_prompt?: string
  model?: string
  seed?: Seed
  steps?: number
  guidance?: number
  sampler?: string
  spacing?: string
  width?: number
  height?: number
  count?: number
  image?: string
  strength?: number
  mask?: string
  mask_blur?: number
  [field: string]: unknown
}

export type Picture = {
  id: string
  job: string | null
  index: number
  sha256: string
  width: number
  height: number
  seed: Seed
  prompt: string
  created: string
  favourite: boolean
  deleted: boolean
  file: string
  thumbnail: string
  record?: { request: Request; [field: string]: unknown } | null
}

export type Progress = {
  step: number
  steps: number
  picture: number
  pictures: number
  elapsed?: number
  left?: number | null
  loading?: string | null
}

export type Fault = { code: string; detail: string; hint?: string | null }

export type Job = {
  id: string
  kind: string
  state: State
  title: string
  api: string
  client: string | null
  priority: number
  position: number | null
  request: Request
  created: string
  started: string | null
  ended: string | null
  attempt: number
  cancelling?: boolean
  progress: Progress | null
  pictures: Picture[]
  error: Fault | null
  retry_of: string | null
  result: { outcome: string; detail: string } | null
}

export type Queue = { running: Job[]; queued: Job[]; paused: boolean }

export type Model = {
  name: string
  title: string
  family: string | null
  why: string | null
  source: string
  size_bytes: number | null
  hash: string | null
  defaults: { width: number; height: number; steps: number; guidance: number; sampler: string | null } | null
  loaded: boolean
  missing: string[]
  default: boolean
}

export type Samplers = { samplers: { name: string; title: string }[]; spacings: string[] }
export type Token = { text: string; id: number; weight: number; chunk: number }
export type Tokens = { tokens: Token[]; chunks: number; limit: number; cut: string }
export type Vocabulary = Record<string, string[]> & { examples: string[] }
export type Reading = { tool: string; request: Request; text: string; unread: string[] }
export type Upload = { id: string; width: number; height: number; metadata: Reading | null }
export type System = { version: string; device: string; dtype: string; [field: string]: unknown }
