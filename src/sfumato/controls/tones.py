"""Colours and light of a picture, as control networks for them were trained to see. No weights needed."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Options = Mapping[str, float]
"""The options of a preprocessor, all of them (`request.PREPROCESSORS`)."""

Levels = NDArray[np.float64]

GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear red, green and blue: ITU-R BT.709, sRGB


def as_levels(picture: Image.Image) -> Levels:
    """An RGB picture as [H, W, 3] in 0 to 255."""
    return np.asarray(picture.convert("RGB")).astype(np.float64)


def as_picture(levels: Levels) -> Image.Image:
    """[H, W] or [H, W, 3] in 0 to 255, rounded, as an RGB picture."""
    whole = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(whole[..., None], 3, axis=2) if whole.ndim == 2 else whole)


def gaussian(levels: Levels, sigma: float) -> Levels:
    """[H, W, C] blurred by a Gaussian of `sigma` pixels, cut off after four of them; mirrored at the border."""
    if sigma <= 0:
        return levels
    reach = max(1, round(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        margins = [(reach, reach) if axis == each else (0, 0) for each in range(3)]
        padded = np.pad(levels, margins, mode="symmetric")
        length = levels.shape[axis]
        levels = sum(
            weight * padded.take(range(place, place + length), axis=axis) for place, weight in enumerate(kernel)
        )
    return levels


def blur(picture: Image.Image, options: Options) -> Image.Image:
    """Blurred by a Gaussian of `sigma` pixels."""
    return as_picture(gaussian(as_levels(picture), options["sigma"]))


def tile(picture: Image.Image, options: Options) -> Image.Image:
    """With a `factor` times fewer pixels a side, averaged, and back at its size: details go, colours stay."""
    if options["factor"] <= 1:
        return picture
    small = smaller(picture, options["factor"])
    return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)


def colour(picture: Image.Image, options: Options) -> Image.Image:
    """Squares of `cell` pixels, each of one colour: the palette of a picture and where it lies."""
    small = smaller(picture, options["cell"])
    return picture.resize(small, Image.Resampling.BICUBIC).resize(picture.size, Image.Resampling.NEAREST)


def smaller(picture: Image.Image, factor: float) -> tuple[int, int]:
    """A picture's width and height, `factor` times smaller; at least a pixel."""
    return max(1, round(picture.width / factor)), max(1, round(picture.height / factor))


def luminance(picture: Image.Image, options: Options) -> Image.Image:
    """Lightness alone (CIE L*), to the power of `gamma`: for recolouring."""
    levels = as_levels(picture) / 255.0
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    y = linear @ LUMINANCE
    lightness = np.where(y <= 216 / 24389, y * 24389 / 27, 116 * np.cbrt(y) - 16) / 100  # CIE 15:2004, 8.2.1
    return as_picture(255.0 * lightness ** options["gamma"])


def threshold(picture: Image.Image, options: Options) -> Image.Image:
    """White where every channel is above `level`."""
    return as_picture(np.where(as_levels(picture).min(axis=2) > options["level"], 255.0, 0.0))


def binary(picture: Image.Image, options: Options) -> Image.Image:
    """White where it is lighter than the threshold that parts light from dark best. Otsu 1979."""
    grey = np.asarray(picture.convert("L")).astype(np.int64)
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    below, weighted = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (weighted / below - (weighted[-1] - weighted) / above) ** 2
    return as_picture(np.where(grey > int(np.nan_to_num(between).argmax()), 255.0, 0.0))


def invert(picture: Image.Image, options: Options) -> Image.Image:
    """Black for white: drawings on white paper, for networks that see white lines on black."""
    return as_picture(255.0 - as_levels(picture))


def shuffle(picture: Image.Image, options: Options) -> Image.Image:
    """The colours of a picture, drawn apart and moved by smooth noise of `seed`: its palette without its shapes."""
    levels = as_levels(picture)
    height, width = levels.shape[:2]
    draw = np.random.Generator(np.random.PCG64(int(options["seed"])))
    rows, columns = (smooth_noise(draw, height, width) * (side - 1) for side in (height, width))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    upper = levels[top, left] * (1 - across) + levels[top, right] * across
    lower = levels[bottom, left] * (1 - across) + levels[bottom, right] * across
    return as_picture(upper * (1 - down) + lower * down)


def smooth_noise(draw: np.random.Generator, height: int, width: int) -> Levels:
    """Noise from 0 to 1 that changes over half of the longer side, [height, width]."""
    cell = max(height, width) / 2
    coarse = draw.random((int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
    size = (round(coarse.shape[1] * cell), round(coarse.shape[0] * cell))
    fine = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.float64)
    noise = fine[round(cell) :, round(cell) :][:height, :width]
    scaled: Levels = (noise - noise.min()) / max(float(noise.max() - noise.min()), 1e-9)
    return scaled
