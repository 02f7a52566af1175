/** What came of making a picture again, in words. */

import type { Verdict } from '../api/types'

const VERDICTS: Record<string, string> = {
  identical: 'Identical: made again from its own record, and every pixel is the same.',
  differs: 'Made again, and it differs.',
  missing: 'It cannot be made again: something it was made with is not here.',
  changed: 'Made again, and it differs, because what it was made with has changed.',
}

export function verdictWords({ outcome, detail }: Verdict): string {
  const words = VERDICTS[outcome] ?? outcome
  return detail && outcome !== 'identical' ? `${words} ${detail}` : words
}
