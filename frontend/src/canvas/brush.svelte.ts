/** The tool in hand: on the canvas, and where smaller masks are painted. */

export class Hand {
  tool = $state<'brush' | 'eraser' | 'move'>('brush')
  /** In parts of the picture's shorter side, so that it suits every picture. */
  size = $state(0.2)
  hardness = $state(0.8)

  diameter(width: number, height: number): number {
    return Math.max(1, this.size * Math.min(width, height))
  }

  grow(factor: number): void {
    this.size = Math.min(1, Math.max(0.01, this.size * factor))
  }
}

export const hand = new Hand()
export const smallHand = new Hand()
