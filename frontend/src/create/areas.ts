/** Areas of a picture: left, top, width and height in parts of the whole, kept within it. Nothing here knows the page. */

export type Area = [left: number, top: number, width: number, height: number]

export const HUNDREDTH = 0.01
const FINE = 1000 // parts of a side that an area is told in

const rounded = (share: number) => Math.round(share * FINE) / FINE
const within = (value: number, low: number, high: number) => Math.min(high, Math.max(low, value))

/** The area carried over by parts of the whole. */
export function moved([left, top, width, height]: Area, by: number, down: number): Area {
  return [rounded(within(left + by, 0, 1 - width)), rounded(within(top + down, 0, 1 - height)), width, height]
}

/** The area with its right and bottom sides carried over. */
export function sized([left, top, width, height]: Area, by: number, down: number): Area {
  return [left, top, rounded(within(width + by, HUNDREDTH, 1 - left)), rounded(within(height + down, HUNDREDTH, 1 - top))]
}

/** The area between two points. */
export function between(a: { x: number; y: number }, b: { x: number; y: number }): Area {
  const [left, right] = [a.x, b.x].map((x) => rounded(within(x, 0, 1))).sort((p, q) => p - q) as [number, number]
  const [top, bottom] = [a.y, b.y].map((y) => rounded(within(y, 0, 1))).sort((p, q) => p - q) as [number, number]
  return [left, top, rounded(right - left), rounded(bottom - top)]
}
