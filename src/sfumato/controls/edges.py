"""Lines and edges of a picture, as control networks for them were trained to see: white on black. No weights needed."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.controls.tones import Options, as_levels, as_picture, gaussian

Integers = NDArray[np.int64]
Levels = NDArray[np.float64]

DIAGONAL = 13573  # tan(22.5 degrees) * 2^15, as OpenCV has it


def canny(picture: Image.Image, options: Options) -> Image.Image:
    """Canny's edges, one pixel wide, with the thresholds `low` and `high` of the gradient: equal to OpenCV's.

    Gradients are Sobel's, |dx| + |dy|, of the channel where that is largest. Canny 1986.
    """
    low, high = sorted((int(options["low"]), int(options["high"])))
    dx, dy = strongest(*sobel(as_levels(picture).astype(np.int64)))
    size = np.abs(dx) + np.abs(dy)
    ridge = is_ridge(size, dx, dy) & (size > low)
    return as_picture(np.where(reached(ridge & (size > high), ridge), 255.0, 0.0))


def sobel(levels: Integers) -> tuple[Integers, Integers]:
    """The horizontal and the vertical gradient of [H, W, C], with the border repeated."""
    padded = np.pad(levels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = padded[:, 2:] - padded[:, :-2]
    down = padded[2:] - padded[:-2]
    return across[:-2] + 2 * across[1:-1] + across[2:], down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]


def strongest(dx: Integers, dy: Integers) -> tuple[Integers, Integers]:
    """Of [H, W, C] gradients those of the first channel where |dx| + |dy| is largest, [H, W]."""
    channel = (np.abs(dx) + np.abs(dy)).argmax(2)[..., None]
    return np.take_along_axis(dx, channel, 2)[..., 0], np.take_along_axis(dy, channel, 2)[..., 0]


def is_ridge(size: Integers, dx: Integers, dy: Integers) -> NDArray[np.bool_]:
    """Where a gradient is larger than its neighbours along its direction, which is rounded to 45 degrees."""
    padded = np.pad(size, 1)
    height, width = size.shape

    def beside(down: int, right: int) -> Integers:
        return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    x, y = np.abs(dx), np.abs(dy) << 15
    flat = y < x * DIAGONAL
    steep = y > x * DIAGONAL + (x << 16)
    falling = (dx ^ dy) < 0
    across = (size > beside(0, -1)) & (size >= beside(0, 1))
    upright = (size > beside(-1, 0)) & (size >= beside(1, 0))
    rising_diagonal = (size > beside(-1, 1)) & (size > beside(1, -1))
    falling_diagonal = (size > beside(-1, -1)) & (size > beside(1, 1))
    diagonal = np.where(falling, rising_diagonal, falling_diagonal)
    return np.where(flat, across, np.where(steep, upright, diagonal))


def reached(seeds: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where one can go from the seeds over allowed pixels, to any of the eight neighbours at a time."""
    found = np.pad(seeds, 1)
    open_to = np.pad(allowed, 1) & ~found
    width = found.shape[1]
    steps = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    edge = np.flatnonzero(found)
    flat_found, flat_open = found.ravel(), open_to.ravel()
    while edge.size:
        around = np.unique(edge[:, None] + steps)
        edge = around[flat_open[around]]
        flat_found[edge], flat_open[edge] = True, False
    return found[1:-1, 1:-1]


def scribble(picture: Image.Image, options: Options) -> Image.Image:
    """Thick lines where a picture is darker than its surroundings: a difference of two Gaussians above `threshold`.

    Winnemöller et al. 2012 (XDoG), as sd-webui-controlnet's `scribble_xdog`.
    """
    levels = as_levels(picture)
    darker = (gaussian(levels, 5.0) - gaussian(levels, 0.5)).min(axis=2)
    return as_picture(np.where(2 * np.clip(np.ceil(darker), 0, 255) > options["threshold"], 255.0, 0.0))


def soft_edge(picture: Image.Image, options: Options) -> Image.Image:
    """The size of a picture's gradient after a `blur` of so many pixels, the largest as white.

    This is not HED or PiDiNet, which need weights: it knows no objects, only how fast colours change.
    """
    levels = gaussian(as_levels(picture), options["blur"])
    rows, columns = np.gradient(levels, axis=(0, 1))
    size = np.hypot(rows, columns).max(axis=2)
    return as_picture(255.0 * size / max(float(size.max()), 1e-9))
