/** Pictures that come from outside: dropped, pasted or chosen. What they say about themselves can be taken over. */

import { api, fileOf } from '../api/client'
import { draft, type Start } from './draft.svelte'
import { attempt, notices } from './notices.svelte'

/** A picture to begin from. Its settings are offered, if it has any. */
export const receiveStart = (file: Blob) => draft.awaits(attempt(() => startFrom(file)))

/** A picture whose settings are taken over; one that says nothing is meant to be drawn from. */
export const receiveSettings = (file: Blob) => draft.awaits(attempt(() => settingsOf(file)))

async function settingsOf(file: Blob): Promise<void> {
  const reading = await api.read(file)
  if (!reading.tool) return startFrom(file)
  draft.takeReading(reading)
  const unread = reading.unread.length ? `; not understood: ${reading.unread.join(', ')}` : ''
  notices.show(`Settings of ${reading.tool} taken over${unread}`, [
    { label: 'Start from the picture too', run: () => void handIn(file, (picture) => (draft.form.start = picture)) },
  ])
}

/** A picture as the server has it from now on, and what it says about itself. */
async function handedIn(file: Blob) {
  const { id, width, height, metadata } = await api.upload(file)
  const picture: Start = { id, width, height, url: fileOf(id) }
  return { picture, metadata }
}

/** Hand a picture in for a place in the form. */
export const handIn = (file: Blob, put: (picture: Start) => void) =>
  draft.awaits(attempt(async () => put((await handedIn(file)).picture)))

async function startFrom(file: Blob): Promise<void> {
  const { picture, metadata } = await handedIn(file)
  draft.form.start = picture
  if (metadata?.tool)
    notices.show(`The picture holds settings of ${metadata.tool}`, [
      { label: 'Use them', run: () => draft.takeReading(metadata) },
    ])
}

/** The picture in what was dropped or pasted; what else was dropped is said to be none. */
export function pictureIn(data: DataTransfer | null): File | null {
  const file = [...(data?.files ?? [])].find((each) => each.type.startsWith('image/'))
  if (!file && data?.files.length) notices.error(new Error(`${data.files[0]?.name ?? 'The file'} is not a picture`))
  return file ?? null
}

export function hasPicture(data: DataTransfer | null): boolean {
  return [...(data?.items ?? [])].some((item) => item.kind === 'file')
}
