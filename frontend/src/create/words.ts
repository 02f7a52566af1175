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
  const which = progress.pictures > 1 ? ` · picture ${Math.min(progress.picture, progress.pictures)} of ${progress.pictures}` : ''
  const left = progress.left === null || progress.left === undefined ? '' : ` · ${seconds(progress.left)} left`
  return `Step ${progress.step} of ${progress.steps}${which}${left}`
}

/** The share of a job that is done, 0 to 1. */
export function share(progress: Progress | undefined): number {
  if (!progress?.steps) return 0
  const pictures = Math.max(1, progress.pictures)
  const done = Math.max(0, progress.picture - 1)
  return Math.min(1, (done + progress.step / progress.steps) / pictures)
}
