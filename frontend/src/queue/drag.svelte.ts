/** Rows of a list that are carried to another place by their grips: with a mouse, a pen or a finger. */

export class Drag {
  /** Where the rows with a `data-at` are. */
  list = $state<HTMLElement>()
  /** The row that is carried, and the place that it would take. */
  from = $state(-1)
  to = $state(-1)

  constructor(private readonly move: (from: number, to: number) => unknown) {}

  begin(event: PointerEvent, at: number): void {
    if (event.button !== 0) return
    event.preventDefault()
    ;(event.currentTarget as Element).setPointerCapture(event.pointerId)
    this.from = this.to = at
  }

  over(event: PointerEvent): void {
    if (this.from < 0) return
    const rows = [...(this.list?.querySelectorAll<HTMLElement>('[data-at]') ?? [])]
    const found = rows.find((row) => event.clientY < row.getBoundingClientRect().bottom) ?? rows.at(-1)
    this.to = Number(found?.dataset.at ?? this.from)
  }

  drop(): void {
    const { from, to } = this
    this.leave()
    if (from >= 0 && from !== to) this.move(from, to)
  }

  leave(): void {
    this.from = this.to = -1
  }

  /** At which side of a row a line shows where the carried one goes. */
  mark(at: number): 'above' | 'below' | '' {
    if (at !== this.to || this.from === this.to) return ''
    return this.to < this.from ? 'above' : 'below'
  }
}
