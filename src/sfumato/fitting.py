"""How a picture takes another size: its middle, bent, or whole with its edges drawn out. Nothing here imports torch."""

import numpy as np
from PIL import Image, ImageOps


def crop_to_fill(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture scaled until it covers width x height, and its middle; unchanged when it has that size."""
    if picture.size == (width, height):
        return picture
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def stretch(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture at width x height, whatever becomes of its shape."""
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.LANCZOS)


def fit_and_fill(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The whole picture in the middle of width x height, as large as it fits; its edges are drawn out to the sides."""
    if picture.size == (width, height):
        return picture
    inner = ImageOps.contain(picture, (width, height), Image.Resampling.LANCZOS)
    left, top = (width - inner.width) // 2, (height - inner.height) // 2
    sides = ((top, height - top - inner.height), (left, width - left - inner.width))
    array = np.asarray(inner)
    return Image.fromarray(np.pad(array, sides + ((0, 0),) * (array.ndim - 2), mode="edge"))


RESIZES = {"crop": crop_to_fill, "stretch": stretch, "fill": fit_and_fill}
"""How a start picture, or one that steers, takes another size."""
