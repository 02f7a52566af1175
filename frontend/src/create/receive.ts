/** Pictures that come from outside: dropped, pasted or chosen. What they say about themselves can be taken over. */

import { api } from '../api/client'
import type { Upload } from '../api/types'
import { draft } from '../state/draft.svelte'
import { attempt, notices } from '../state/notices.svelte'
import { ROOT } from '../api/client'

/** `start`: the picture becomes the start picture. `settings`: its settings are taken, if it has any. */
export type Purpose = 'start' | 'settings'

export const receive = (file: Blob, purpose: Purpose) =>
  attempt(async () => {
    const upload = await api.upload(file)
    const { metadata } = upload
    if (purpose === 'start' || !metadata) {
      put(upload)
      if (metadata)
        notices.show(`The picture holds ${metadata.tool || 'its'} settings`, [
          { label: 'Use them', run: () => draft.takeReading(metadata) },
        ])
    } else {
      draft.takeReading(metadata)
      const unread = metadata.unread.length ? `; not understood: ${metadata.unread.join(', ')}` : ''
      notices.show(`Settings of ${metadata.tool || 'the picture'} taken over${unread}`, [
        { label: 'Start from the picture too', run: () => put(upload) },
      ])
    }
  })

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
