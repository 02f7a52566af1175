/** What can be done with a picture, from wherever it is shown. */

import { api, fileOf } from '../api/client'
import type { Picture, Request } from '../api/types'
import { bitmap } from './bitmap'
import { draft, type Start } from './draft.svelte'
import { MASKED } from './fields'
import { attempt, notices } from './notices.svelte'
import { route } from './route.svelte'
import { session } from './session.svelte'
import { store } from './store.svelte'

/** The request that made a picture: its job's, which names pictures as they were handed in, or that of its record. */
export async function requestOf(picture: Picture): Promise<Request> {
  const job = picture.job ? await api.job(picture.job).catch(() => null) : null // it may have been taken off the list
  const record = job ? null : (picture.record ?? (await api.picture(picture.id)).record)
  const { prompt, width, height } = picture
  const request: Request = { ...(job?.request ?? record?.request ?? { width, height }), prompt, seed: picture.seed, count: 1 }
  const variation = request.variation as { strength: number; seed?: string } | undefined
  if (variation?.seed && variation.strength > 0)
    request.variation = { ...variation, seed: String(BigInt(variation.seed) + BigInt(picture.index)) } // each has its own
  return request
}

/** A request for the whole of a picture that may have been made by a mask or a second pass. */
function withoutMask(request: Request): Request {
  const whole = { ...request }
  for (const name of [...MASKED, 'hires', 'variation']) delete whole[name]
  return whole
}

/** The same request with new seeds. */
export const moreLike = (picture: Picture) =>
  attempt(async () => {
    const { seed: _, ...request } = await requestOf(picture)
    await session.draw({ ...request, count: 4 })
    route.go('create')
  })

/** Pictures near this one: it is the start picture of its own words. */
export const vary = (picture: Picture) =>
  attempt(async () => {
    const request = withoutMask(await requestOf(picture))
    await session.draw({ ...request, seed: undefined, image: picture.sha256, strength: 0.6, count: 4 })
    route.go('create')
  })

export const favourite = (picture: Picture) =>
  attempt(async () => {
    store.picture({ ...picture, favourite: !picture.favourite }) // at once; the answer corrects it
    try {
      store.picture(await api.favourite(picture.id, !picture.favourite))
    } catch (problem) {
      store.picture(picture)
      throw problem
    }
  })

export const remove = (picture: Picture) =>
  attempt(async () => {
    await api.remove(picture.id)
    store.picture({ ...picture, deleted: true })
    store.arrivals++
    notices.show('Deleted', [{ label: 'Undo', run: () => void restore(picture) }])
  })

const restore = (picture: Picture) =>
  attempt(async () => {
    store.picture(await api.restore(picture.id))
    store.arrivals++
  })

export const reuse = (picture: Picture) =>
  attempt(async () => {
    const request = await requestOf(picture)
    draft.take(request)
    draft.form.start = request.image && !request.mask ? await startOf(request.image) : null
    route.go('create')
    notices.show('Settings and seed taken over')
  })

/** A picture that a request names by its pixels, as one to begin from. */
export async function startOf(id: string): Promise<Start> {
  const { width, height } = await bitmap(fileOf(id))
  return { id, url: fileOf(id), width, height }
}

/** A picture of the gallery as one to begin from or to steer by. */
export const asStart = ({ sha256, width, height, file }: Picture): Start => ({ id: sha256, width, height, url: file })

export function startFrom(picture: Picture): void {
  draft.form.start = asStart(picture)
  route.go('create')
}

const ENLARGED = 2

/** The same picture twice as large, drawn over lightly so that it gains detail instead of blur. */
export const upscale = (picture: Picture) =>
  attempt(async () => {
    const request = withoutMask(await requestOf(picture))
    const size = { width: picture.width * ENLARGED, height: picture.height * ENLARGED }
    await session.draw({ ...request, ...size, image: picture.sha256, strength: 0.35 })
    route.go('create')
  })
