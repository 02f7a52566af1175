/** Why a job has failed, so that a person understands it: what happened first, then the server's own words. */

import type { Fault } from '../api/types'

const HAPPENED: Record<string, string> = {
  'picture.unreadable': 'The picture or the mask that it begins with is missing or damaged',
  'picture.gone': 'The picture or the mask that it begins with is missing or damaged',
  'model.unknown': 'The model is not installed any more',
  'model.unusable': 'A file that it needs cannot be used',
  'model.changed': 'The model’s files have changed since this was asked for',
  'file.changed': 'A file that it needs has changed since this was asked for',
  'words.changed': 'Its words mean something else than when this was asked for',
  'disk.full': 'The disk is full',
  out_of_memory: 'The memory was not enough',
  worker_crashed: 'The drawing process ended unexpectedly, and again when it was tried anew',
  'output.failed': 'The picture could not be written',
}

export function faultWords(fault: Fault | null): string {
  if (!fault) return 'The server gave no reason.'
  const happened = HAPPENED[fault.code]
  return happened ? `${happened}: ${fault.detail}` : fault.detail
}
