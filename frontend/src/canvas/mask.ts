/** A mask and the brush on it: one byte a pixel, 255 = repaint. Nothing here knows the page. */

export type Mask = { width: number; height: number; data: Uint8Array }
export type Box = { x: number; y: number; width: number; height: number }
export type Point = { x: number; y: number; pressure: number }
export type Brush = { diameter: number; hardness: number; erase: boolean }

export function blank(width: number, height: number, value = 0): Mask {
  return { width, height, data: new Uint8Array(width * height).fill(value) }
}

export function copy(mask: Mask): Mask {
  return { ...mask, data: mask.data.slice() }
}

export function inverted(mask: Mask): Mask {
  return { ...mask, data: mask.data.map((value) => 255 - value) }
}

export function isEmpty(mask: Mask): boolean {
  return mask.data.every((value) => value === 0)
}

/** A stroke in the making: how far the brush has covered each pixel, over the mask as it was before. */
export class Stroke {
  readonly #cover: Uint8Array
  readonly #before: Uint8Array
  #last: Point | null = null

  constructor(
    readonly mask: Mask,
    readonly brush: Brush,
  ) {
    this.#before = mask.data.slice()
    this.#cover = new Uint8Array(mask.data.length)
  }

  /** Draw on to a point. Returns the part of the mask that may have changed, or null. */
  to(point: Point): Box | null {
    const from = this.#last ?? point
    this.#last = point
    const length = Math.hypot(point.x - from.x, point.y - from.y)
    const spacing = Math.max(0.5, this.brush.diameter / 10)
    const dabs = Math.max(1, Math.ceil(length / spacing))
    let changed: Box | null = null
    for (let i = 1; i <= dabs; i++) {
      const t = i / dabs
      const box = this.#dab(
        from.x + (point.x - from.x) * t,
        from.y + (point.y - from.y) * t,
        from.pressure + (point.pressure - from.pressure) * t,
      )
      changed = joined(changed, box)
    }
    return changed
  }

  #dab(x: number, y: number, pressure: number): Box | null {
    const { mask, brush } = this
    const radius = Math.max(0.5, (brush.diameter / 2) * pressure)
    const left = Math.max(0, Math.floor(x - radius))
    const top = Math.max(0, Math.floor(y - radius))
    const right = Math.min(mask.width, Math.ceil(x + radius) + 1)
    const bottom = Math.min(mask.height, Math.ceil(y + radius) + 1)
    if (left >= right || top >= bottom) return null
    // full up to `core`, then down to nothing at the rim; half a pixel on each side keeps a hard rim smooth
    const core = radius * brush.hardness
    const fade = Math.max(1, radius - core)
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y)
        const t = Math.min(1, Math.max(0, (radius + 0.5 - distance) / fade))
        const cover = Math.round(255 * t * t * (3 - 2 * t))
        const at = row * mask.width + column
        if (cover > this.#cover[at]!) {
          this.#cover[at] = cover
          const before = this.#before[at]!
          mask.data[at] = brush.erase ? Math.min(before, 255 - cover) : Math.max(before, cover)
        }
      }
    }
    return { x: left, y: top, width: right - left, height: bottom - top }
  }
}

function joined(a: Box | null, b: Box | null): Box | null {
  if (!a || !b) return a ?? b
  const x = Math.min(a.x, b.x)
  const y = Math.min(a.y, b.y)
  const width = Math.max(a.x + a.width, b.x + b.width) - x
  const height = Math.max(a.y + a.height, b.y + b.height) - y
  return { x, y, width, height }
}

/** The mask as opaque grey pixels, for the file. */
export function grey(mask: Mask): ImageData {
  const image = new ImageData(mask.width, mask.height)
  mask.data.forEach((value, at) => image.data.set([value, value, value, 255], 4 * at))
  return image
}

/** A part of the mask as a veil of one colour, for the eye. */
export function veil(mask: Mask, box: Box, [red, green, blue]: [number, number, number], opacity: number): ImageData {
  const image = new ImageData(box.width, box.height)
  for (let row = 0; row < box.height; row++) {
    for (let column = 0; column < box.width; column++) {
      const at = 4 * (row * box.width + column)
      image.data[at] = red
      image.data[at + 1] = green
      image.data[at + 2] = blue
      image.data[at + 3] = mask.data[(box.y + row) * mask.width + box.x + column]! * opacity
    }
  }
  return image
}
