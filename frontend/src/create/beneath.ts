import { draft } from '../state/draft.svelte'
import { session } from '../state/session.svelte'

/** What lies beneath parts of a picture that is still to be drawn: the start picture, or what was drawn last. */
export function beneath(): string | null {
  return draft.form.start?.url ?? (session.current?.kind === 'picture' ? session.current.picture.file : null)
}
