/** What `/sfumato/v1` says, as far as the studio reads it. */

export type Verdict = { outcome: string; detail: string }

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

/** A LoRA and how much of it counts. */
export type Lora = { name: string; weight: number; text_weight?: number }

/** A prompt for a part of the picture: its left, top, width and height in parts of the whole, or a mask. */
export type Region = { prompt: string; area?: [number, number, number, number]; mask?: string; weight: number }

/** What every picture that steers has: how much it counts, and in which part of the steps. */
export type Acting = { model: string; weight: number; start: number; end: number }
export type Control = Acting & {
  image?: string
  preprocessor: string
  mode: string
  resize: string
  task?: string
  options: Record<string, number>
}
export type ImagePrompt = Acting & { images: string[]; encoder?: string; mask?: string }

export type Hires = {
  scale?: number
  size?: [number, number]
  upscaler?: string
  strength?: number
  steps?: number
  sampler?: string
  spacing?: string
  guidance?: number
  prompt?: string
  negative_prompt?: string
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
  /** How many of the pictures are done, and how many are drawn at once. */
  picture: number
  together?: number
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
  result: Verdict | null
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
export type Named = { name: string; source: string; size_bytes: number | null }
export type ControlFile = Named & { role: 'control' | 'image_prompt' }
/** What a picture can be turned into, and what a network for several kinds of pictures can be told that it sees. */
export type Preprocessors = { preprocessors: Preprocessor[]; tasks: string[] }
export type Preprocessor = { name: string; options: { name: string; default: number; low: number; high: number }[] }
export type Style = { name: string; prompt: string; negative_prompt: string }
/** A picture that a control network is to see. */
export type Sight = Pick<Control, 'preprocessor' | 'options' | 'resize'> & { image: string; width?: number; height?: number }
export type Token = { text: string; id: number; weight: number; chunk: number }
export type Tokens = { tokens: Token[]; chunks: number; limit: number; cut: string }
export type Vocabulary = Record<string, string[]> & { examples: string[] }
export type Reading = { tool: string; request: Request; text: string; unread: string[] }
export type Upload = { id: string; width: number; height: number; metadata: Reading | null }
export type System = { version: string; device: string; dtype: string; [field: string]: unknown }
