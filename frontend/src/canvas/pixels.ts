/** Pictures and masks as files and back, in the page. */

import { blank, grey, type Mask } from './mask'

export type Sides = { left: number; top: number; right: number; bottom: number }

export async function bitmap(url: string): Promise<ImageBitmap> {
  const answer = await fetch(url)
  if (!answer.ok) throw new Error(`The picture cannot be loaded (${answer.status})`)
  return createImageBitmap(await answer.blob())
}

function context(width: number, height: number): [HTMLCanvasElement, CanvasRenderingContext2D] {
  const canvas = document.createElement('canvas')
  canvas.width = width
  canvas.height = height
  return [canvas, canvas.getContext('2d') as CanvasRenderingContext2D]
}

function png(canvas: HTMLCanvasElement): Promise<Blob> {
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('The picture is too large for this browser'))), 'image/png'),
  )
}

/** A mask as a grey PNG of its own size. */
export function maskFile(mask: Mask): Promise<Blob> {
  const [canvas, draw] = context(mask.width, mask.height)
  draw.putImageData(grey(mask), 0, 0)
  return png(canvas)
}

/** The mask in a grey picture. */
export async function maskFrom(url: string): Promise<Mask> {
  const picture = await createImageBitmap(await (await fetch(url)).blob())
  const [, draw] = context(picture.width, picture.height)
  draw.drawImage(picture, 0, 0)
  const { data } = draw.getImageData(0, 0, picture.width, picture.height)
  const mask = blank(picture.width, picture.height)
  for (let i = 0; i < mask.data.length; i++) mask.data[i] = data[4 * i]!
  return mask
}

/** The picture with room at its sides, filled by stretching its edges, as a PNG. */
export function padded(picture: ImageBitmap, { left, top, right, bottom }: Sides): Promise<Blob> {
  const { width, height } = picture
  const [canvas, draw] = context(width + left + right, height + top + bottom)
  const columns: [number, number, number, number][] = [
    [0, 1, 0, left],
    [0, width, left, width],
    [width - 1, 1, left + width, right],
  ]
  const rows: [number, number, number, number][] = [
    [0, 1, 0, top],
    [0, height, top, height],
    [height - 1, 1, top + height, bottom],
  ]
  for (const [sx, sw, x, w] of columns)
    for (const [sy, sh, y, h] of rows) if (w && h) draw.drawImage(picture, sx, sy, sw, sh, x, y, w, h)
  return png(canvas)
}

/** White where a padded picture is new, and a little beyond, so that the seam is drawn anew. */
export function paddedMask(old: Mask, { left, top, right, bottom }: Sides, overlap: number): Mask {
  const mask = blank(old.width + left + right, old.height + top + bottom, 255)
  const inner = {
    x0: left ? left + overlap : 0,
    y0: top ? top + overlap : 0,
    x1: left + old.width - (right ? overlap : 0),
    y1: top + old.height - (bottom ? overlap : 0),
  }
  for (let y = inner.y0; y < inner.y1; y++)
    for (let x = inner.x0; x < inner.x1; x++)
      mask.data[y * mask.width + x] = old.data[(y - top) * old.width + x - left]!
  return mask
}
