/** Times and states in words. */

import type { Job, Progress } from '../api/types'

export function seconds(value: number): string {
  if (value < 1) return 'less than a second'
  if (value < 90) return `${Math.round(value)} s`
  const minutes = Math.round(value / 60)
  return minutes < 90 ? `${minutes} min` : `${Math.round(minutes / 60)} h`
}

export function progressWords(job: Job, progress: Progress | undefined): string {
  if (job.cancelling) return 'Cancelling'
  if (job.state === 'queued') {
    const ahead = (job.position ?? 1) - 1
    return ahead > 0 ? `Waiting: ${ahead} ${ahead === 1 ? 'job' : 'jobs'} before it` : 'Waiting for its turn'
  }
  if (progress?.loading) return `Loading ${progress.loading}`
  if (!progress?.steps) return 'Getting ready'
  const which = progress.pictures > 1 ? ` · ${numbered(progress)} of ${progress.pictures}` : ''
  const left = progress.left === null || progress.left === undefined ? '' : ` · ${seconds(progress.left)} left`
  return `Step ${progress.step} of ${progress.steps}${which}${left}`
}

/** Those that are being drawn; `picture` counts those that are done. */
function numbered({ picture, together = 1 }: Progress): string {
  return together > 1 ? `pictures ${picture + 1} to ${picture + together}` : `picture ${picture + 1}`
}

/** The share of a job that is done, 0 to 1. */
export function share(progress: Progress | undefined): number {
  if (!progress?.steps) return 0
  const { step, steps, picture, pictures, together = 1 } = progress
  return Math.min(1, (picture + (together * step) / steps) / Math.max(1, pictures))
}
