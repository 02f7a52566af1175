/** Where the picture lies on the screen: moved and scaled about points, never out of sight. */

const LEAST = 0.1
const MOST = 40
const MARGIN = 56 // px around the picture when it is fitted

class View {
  scale = $state(1)
  x = $state(0)
  y = $state(0)
  width = $state(0)
  height = $state(0)
  /** Whether it shows the picture whole, and has not been moved since. */
  whole = true

  /** Show a picture whole, in the middle. */
  fit(width: number, height: number): void {
    if (!this.width || !this.height) return
    const scale = Math.min((this.width - 2 * MARGIN) / width, (this.height - 2 * MARGIN) / height)
    this.scale = Math.min(MOST, Math.max(LEAST, scale))
    this.whole = true
    this.x = (this.width - width * this.scale) / 2
    this.y = (this.height - height * this.scale) / 2
  }

  /** Scale by a factor; the point under (x, y) stays where it is. */
  zoom(factor: number, x: number, y: number): void {
    const scale = Math.min(MOST, Math.max(LEAST, this.scale * factor))
    this.x = x - ((x - this.x) * scale) / this.scale
    this.y = y - ((y - this.y) * scale) / this.scale
    this.scale = scale
    this.whole = false
  }

  move(x: number, y: number): void {
    this.x += x
    this.y += y
    this.whole = false
  }
}

export const view = new View()
