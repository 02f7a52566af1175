/** Pictures that come from outside: dropped, pasted or chosen. What they say about themselves can be taken over. */

import { ROOT, api } from '../api/client'
import type { Upload } from '../api/types'
import { draft } from '../state/draft.svelte'
import { attempt, notices } from '../state/notices.svelte'

/** `start`: the picture becomes the start picture. `settings`: its settings are taken, if it has any. */
export type Purpose = 'start' | 'settings'

export const receive = (file: Blob, purpose: Purpose) =>
  attempt(() => (purpose === 'start' ? startFrom(file) : takeSettings(file)))

async function startFrom(file: Blob): Promise<void> {
  const upload = await api.upload(file)
  put(upload)
  const { metadata } = upload
  if (metadata?.tool)
    notices.show(`The picture holds settings of ${metadata.tool}`, [
      { label: 'Use them', run: () => draft.takeReading(metadata) },
    ])
}

async function takeSettings(file: Blob): Promise<void> {
  const reading = await api.read(file)
  if (!reading.tool) return startFrom(file) // it says nothing: then it is meant to be drawn from
  draft.takeReading(reading)
  const unread = reading.unread.length ? `; not understood: ${reading.unread.join(', ')}` : ''
  const start = async () => put(await api.upload(file))
  notices.show(`Settings of ${reading.tool} taken over${unread}`, [
    { label: 'Start from the picture too', run: () => void attempt(start) },
  ])
}

function put(upload: Upload): void {
  draft.form.start = {
    id: upload.id,
    width: upload.width,
    height: upload.height,
    url: `${ROOT}/uploads/${upload.id}/file`,
  }
}

/** The picture in what was dropped or pasted: a file, or one of ours dragged from another part of the page. */
export async function dropped(data: DataTransfer | null, purpose: Purpose): Promise<void> {
  const file = [...(data?.files ?? [])].find((each) => each.type.startsWith('image/'))
  if (file) await receive(file, purpose)
  else if (data?.files.length) notices.error(new Error(`${data.files[0]?.name ?? 'The file'} is not a picture`))
}

export function hasPicture(data: DataTransfer | null): boolean {
  return [...(data?.items ?? [])].some((item) => item.kind === 'file')
}
