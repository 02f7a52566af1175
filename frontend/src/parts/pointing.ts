/** Where pointers and arrow keys point to. Nothing here knows the page. */

export type Place = { x: number; y: number }

/** Where a pointer is in an element, in pixels of the screen. */
export function placeIn(element: Element, event: MouseEvent): Place {
  const box = element.getBoundingClientRect()
  return { x: event.clientX - box.left, y: event.clientY - box.top }
}

/** Where an arrow key carries something by a step; null for every other key. */
export function carried(key: string, step: number): Place | null {
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? [0, 0]
  return x || y ? { x: x! * step, y: y! * step } : null
}

/** How hard a pointer presses: only pens do, a mouse says 0.5 and a finger what it likes. */
export const pressure = (event: PointerEvent) => (event.pointerType === 'pen' ? Math.max(0.1, event.pressure) : 1)

/** All places between two frames that a pointer was at, the event's own if the browser kept none. */
export function passed(event: PointerEvent): PointerEvent[] {
  const events = event.getCoalescedEvents?.() ?? []
  return events.length ? events : [event]
}
