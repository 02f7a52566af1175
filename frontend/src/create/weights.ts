/** Prompt weights by key, as A1111 has them: the words selected become `(words:1.1)`, then 1.2, ... and back. */

export type Edit = { text: string; start: number; end: number }

const WEIGHTED = /^\(([\s\S]*):(-?\d*\.?\d+)\)$/
const STEP = 0.1

/** The text after the weight of what is selected (or of the word at the caret) was changed by one step. */
export function reweigh(text: string, start: number, end: number, up: boolean): Edit {
  ;[start, end] = grown(text, ...(start === end ? word(text, start) : ([start, end] as const)))
  const chosen = text.slice(start, end)
  if (!chosen.trim()) return { text, start, end }
  const found = WEIGHTED.exec(chosen)
  const inside = found?.[1] ?? chosen
  const weight = Math.round((Number(found?.[2] ?? 1) + (up ? STEP : -STEP)) * 100) / 100
  const wrapped = weight === 1 ? inside : `(${inside}:${weight})`
  return { text: text.slice(0, start) + wrapped + text.slice(end), start, end: start + wrapped.length }
}

function word(text: string, caret: number): [number, number] {
  let [start, end] = [caret, caret]
  while (start > 0 && /[^\s,.()]/.test(text.charAt(start - 1))) start--
  while (end < text.length && /[^\s,.()]/.test(text.charAt(end))) end++
  return [start, end]
}

/** The selection without white space at its ends, and with the weighted parentheses directly around it. */
function grown(text: string, start: number, end: number): [number, number] {
  while (start < end && /\s/.test(text.charAt(start))) start++
  while (end > start && /\s/.test(text.charAt(end - 1))) end--
  const tail = /^:-?\d*\.?\d+\)/.exec(text.slice(end))
  return tail && text.charAt(start - 1) === '(' ? [start - 1, end + tail[0].length] : [start, end]
}
