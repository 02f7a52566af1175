/** The pixels of a picture: of the server, or of a data address, which the page's policy lets only images load. */
export async function bitmap(url: string): Promise<ImageBitmap> {
  const image = new Image()
  image.src = url
  try {
    await image.decode()
  } catch {
    throw new Error('The picture cannot be loaded')
  }
  return createImageBitmap(image)
}
