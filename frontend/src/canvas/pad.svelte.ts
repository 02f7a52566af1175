/** A small mask that is painted by itself: where in a picture something counts. */

import { api, fileOf } from '../api/client'
import { draft } from '../state/draft.svelte'
import { attempt } from '../state/notices.svelte'
import { blank, copy, inverted, isEmpty, type Mask } from './mask'
import { Past } from './past.svelte'
import { maskFile, maskFrom } from './pixels'

export class Pad {
  /** Changed in place by strokes; `version` tells when it was changed as a whole. */
  mask = $state.raw<Mask>(blank(1, 1))
  version = $state(0)
  filled = $state(false)
  #past = $state.raw(new Past<Mask>())
  /** What the server has of it. */
  #told: string | undefined = undefined
  #turn = 0

  /** `tell` hears under which name the server has the mask; nothing when it is empty. */
  constructor(
    width: number,
    height: number,
    private readonly tell: (id: string | undefined) => void,
  ) {
    this.mask = blank(width, height)
  }

  get canUndo(): boolean {
    return this.#past.canUndo
  }

  get canRedo(): boolean {
    return this.#past.canRedo
  }

  /** Be a mask that the server has. */
  async become(id: string | undefined): Promise<void> {
    if (id === this.#told) return
    this.#told = id
    this.#turn++
    this.#past = new Past()
    this.mask = id === undefined ? blank(this.mask.width, this.mask.height) : await maskFrom(fileOf(id))
    this.#changed()
  }

  remember(): void {
    this.#past.remember(copy(this.mask))
  }

  fill(value: 0 | 255): void {
    this.remember()
    this.#put(blank(this.mask.width, this.mask.height, value))
  }

  invert(): void {
    this.remember()
    this.#put(inverted(this.mask))
  }

  undo(): void {
    this.#put(this.#past.undo(this.mask))
  }

  redo(): void {
    this.#put(this.#past.redo(this.mask))
  }

  #put(mask: Mask | undefined): void {
    if (!mask) return
    this.mask = mask
    this.changed()
  }

  /** Hand it in as it is now. */
  changed(): void {
    this.#changed()
    const turn = ++this.#turn
    const told = (id: string | undefined) => {
      if (turn !== this.#turn) return // something newer is on its way
      this.#told = id
      this.tell(id)
    }
    if (this.filled) draft.awaits(attempt(async () => told((await api.upload(await maskFile(this.mask))).id)))
    else told(undefined)
  }

  #changed(): void {
    this.version++
    this.filled = !isEmpty(this.mask)
  }
}
