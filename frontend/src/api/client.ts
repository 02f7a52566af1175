/** Calls of `/sfumato/v1`. Every failure is an `ApiError` whose words can be shown to a person. */

import type { ControlFile, Job, Model, Named, Picture, Preprocessors, Queue, Reading, Request, Samplers } from './types'
import type { Sight, Style, System, Tokens, Upload, Vocabulary } from './types'

export const ROOT = '/sfumato/v1'

/** Where a picture lies that the server has, by its pixels. */
export const fileOf = (id: string) => `${ROOT}/uploads/${id}/file`

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly field: string | null = null,
    readonly hint: string | null = null,
  ) {
    super(message)
  }
}

type Body = { json?: unknown; blob?: Blob }

const PATIENCE = 5 // answers "too many at once" that are waited out

/** Called when the server asks for its token. */
export const access = { refused: () => {} }

/** An answer that is not an error; what is too much at once is waited for. */
async function answered(method: string, path: string, body: Body, headers: Record<string, string>): Promise<Response> {
  const sent = body.json === undefined ? body.blob : written(body.json)
  const type = body.json === undefined ? body.blob?.type || 'application/octet-stream' : 'application/json'
  const request = { method, body: sent, headers: sent ? { 'Content-Type': type, ...headers } : headers }
  let answer = await reach(path, request)
  for (let tries = 0; answer.status === 429 && tries < PATIENCE; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get('Retry-After') ?? 1)))
    answer = await reach(path, request)
  }
  if (answer.ok) return answer
  if (answer.status === 401) access.refused()
  let problem: { detail?: string; title?: string; field?: string; hint?: string } = {}
  try {
    problem = (await answer.json()) as typeof problem
  } catch {
    // of something between the server and the page; the number must do
  }
  const words = problem.detail ?? problem.title ?? `${method} ${path} was answered with ${answer.status}`
  throw new ApiError(words, answer.status, problem.field ?? null, problem.hint ?? null)
}

async function call<T>(method: string, path: string, body: Body = {}, headers: Record<string, string> = {}): Promise<T> {
  const answer = await answered(method, path, body, headers)
  const text = await answer.text()
  try {
    return (text ? parsed(text) : null) as T
  } catch {
    throw new ApiError(`${path} was not answered in JSON`, answer.status)
  }
}

/** JSON with the digits of its seeds kept, however many; and back. Quotes within texts are escaped, so none matches. */
export function parsed(text: string): unknown {
  return JSON.parse(text.replace(/"seed":\s*(\d+)(?=\s*[,}])/g, '"seed":"$1"'))
}

/** JSON as the server takes it, with the digits of its seeds as numbers. */
export function written(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(/"seed":(\s?)"(\d+)"/g, '"seed":$1$2')
}

async function reach(path: string, request: RequestInit): Promise<Response> {
  try {
    return await fetch(ROOT + path, request)
  } catch {
    throw new ApiError('The server cannot be reached. It may be starting again; nothing of yours is lost.', 0)
  }
}

function query(values: Record<string, string | number | boolean | null | undefined>): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '')
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : ''
}

export type Page<T extends string, V> = Record<T, V[]> & { next: string | null; total?: number }
export type Listed = 'loras' | 'embeddings' | 'vaes' | 'upscalers' | 'controls' | 'styles'
export type PictureFilter = { search?: string; favourite?: boolean; deleted?: boolean; job?: string; limit?: number; cursor?: string | null }

export const api = {
  submit: (request: Request, key: string, title?: string) =>
    call<Job>('POST', '/jobs', { json: title ? { request, title } : { request } }, { 'Idempotency-Key': key }),
  job: (id: string) => call<Job>('GET', `/jobs/${id}`),
  jobs: (filter: { state?: string; search?: string; limit?: number; cursor?: string | null }) =>
    call<Page<'jobs', Job>>('GET', `/jobs${query(filter)}`),
  cancel: (id: string) => call<Job>('POST', `/jobs/${id}/cancel`),
  retry: (id: string) => call<Job>('POST', `/jobs/${id}/retry`),
  moveBefore: (id: string, before: string) => call<Job>('PATCH', `/jobs/${id}`, { json: { before } }),
  forget: (id: string) => call<null>('DELETE', `/jobs/${id}`),
  queue: () => call<Queue>('GET', '/queue'),
  clearQueue: () => call<null>('POST', '/queue/clear'),

  pictures: (filter: PictureFilter) => call<Page<'pictures', Picture>>('GET', `/pictures${query(filter)}`),
  picture: (id: string) => call<Picture>('GET', `/pictures/${id}`),
  favourite: (id: string, favourite: boolean) => call<Picture>('PATCH', `/pictures/${id}`, { json: { favourite } }),
  remove: (id: string) => call<Picture | null>('DELETE', `/pictures/${id}`),
  restore: (id: string) => call<Picture>('POST', `/pictures/${id}/restore`),
  replay: (id: string) => call<Job>('POST', `/pictures/${id}/replay`),

  upload: (blob: Blob) => call<Upload>('POST', '/uploads', { blob }),
  read: (blob: Blob) => call<Reading>('POST', '/read', { blob }),
  models: () => call<{ models: Model[] }>('GET', '/models'),
  listed: async <T = Named>(what: Listed) => (await call<Record<string, T[]>>('GET', `/${what}`))[what] ?? [],
  controls: () => api.listed<ControlFile>('controls'),
  preprocessors: () => call<Preprocessors>('GET', '/preprocessors'),
  styles: () => api.listed<Style>('styles'),
  preprocess: async (sight: Sight) => (await answered('POST', '/preprocess', { json: sight }, {})).blob(),
  samplers: () => call<Samplers>('GET', '/samplers'),
  tokens: (prompt: string, model?: string) => call<Tokens>('POST', '/tokens', { json: model ? { prompt, model } : { prompt } }),
  vocabulary: () => call<Vocabulary>('GET', '/vocabulary'),
  system: () => call<System>('GET', '/system'),
  session: (token: string) => call<null>('POST', '/session', { json: { token } }),
}
