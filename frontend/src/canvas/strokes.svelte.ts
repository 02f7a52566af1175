/** The brush at work over a mask on the screen: strokes by a pointer, dabs by keys, and where it would paint. */

import { carried, type Place } from '../parts/pointing'
import type { Hand } from './brush.svelte'
import { Stroke, type Box, type Mask } from './mask'

const KEY_STEP = 1 / 32 // of the mask's shorter side, for the brush moved by arrows

/** What is painted on. */
export type Sheet = {
  mask: Mask
  remember: () => void
  changed: () => void
  /** Where the mask lies on the screen. */
  origin: Place
  scale: number
}

export class Strokes {
  /** Where the brush is on the screen, if it is over the sheet. */
  cursor = $state<Place | null>(null)
  #stroke: Stroke | null = null

  constructor(
    private readonly hand: Hand,
    private readonly sheet: () => Sheet,
    private readonly show: (changed: Box | null) => void,
  ) {}

  get painting(): boolean {
    return this.#stroke !== null
  }

  /** How wide the brush is on the screen. */
  get across(): number {
    const { mask, scale } = this.sheet()
    return this.hand.diameter(mask.width, mask.height) * scale
  }

  begin(at: Place, pressure = 1): void {
    const { hand } = this
    const { mask, remember } = this.sheet()
    remember()
    const diameter = hand.diameter(mask.width, mask.height)
    this.#stroke = new Stroke(mask, { diameter, hardness: hand.hardness, erase: hand.tool === 'eraser' })
    this.to(at, pressure)
  }

  to(at: Place, pressure = 1): void {
    const { origin, scale } = this.sheet()
    const point = { x: (at.x - origin.x) / scale, y: (at.y - origin.y) / scale, pressure }
    if (this.#stroke) this.show(this.#stroke.to(point))
  }

  end(): void {
    if (!this.#stroke) return
    this.#stroke = null
    this.sheet().changed()
  }

  /** Painting without a pointer: arrows carry the brush, Enter puts it down once. Whether the key meant that. */
  pressed(event: KeyboardEvent): boolean {
    const { mask, origin, scale } = this.sheet()
    const at = this.cursor ?? { x: origin.x + (mask.width * scale) / 2, y: origin.y + (mask.height * scale) / 2 }
    const by = KEY_STEP * Math.min(mask.width, mask.height) * scale * (event.shiftKey ? 4 : 1)
    const step = carried(event.key, by)
    if (step) this.cursor = { x: at.x + step.x, y: at.y + step.y }
    else if (event.key === 'Enter') {
      this.cursor = at
      this.begin(at)
      this.end()
    } else return false
    event.preventDefault()
    return true
  }
}
