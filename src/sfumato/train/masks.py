"""Random masks for inpainting, each a function of the run's seed and its sample's number: 1 = repaint."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

MASK = 21  # purpose of the keyed generator
SMALLEST, LARGEST = 0.15, 0.9  # of a side: rectangles, and the axes of ellipses
STROKES, BENDS = (1, 4), (2, 8)  # how many, and how many straight parts of each; both ends can come
THIN, THICK = 0.05, 0.2  # of a side: the breadth of a stroke

Random = np.random.Generator
Point = np.ndarray[tuple[int], np.dtype[np.float64]]
"""How far down and across, as parts of the side."""
Grid = tuple[Tensor, Tensor]
"""The heights [H, 1] and places across [1, W] of pixels' middles, as parts of the side."""


def rectangles(rng: Random, grid: Grid) -> Tensor:
    """One to three rectangles, [H, W] of truth."""
    covered = torch.zeros(len(grid[0]), grid[1].shape[1], dtype=torch.bool)
    for _ in range(rng.integers(1, 4)):
        tall, wide = rng.uniform(SMALLEST, LARGEST, 2)
        top, left = rng.uniform(0, 1 - tall), rng.uniform(0, 1 - wide)
        covered |= ((grid[0] - top - tall / 2).abs() <= tall / 2) & ((grid[1] - left - wide / 2).abs() <= wide / 2)
    return covered


def ellipse(rng: Random, grid: Grid) -> Tensor:
    """One ellipse, turned by any angle, [H, W] of truth."""
    down, across = grid[0] - rng.uniform(0.2, 0.8), grid[1] - rng.uniform(0.2, 0.8)
    angle, axes = rng.uniform(0, np.pi), rng.uniform(SMALLEST, LARGEST, 2) / 2
    along, beside = np.cos(angle) * across + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * across
    covered: Tensor = (along / axes[0]) ** 2 + (beside / axes[1]) ** 2 <= 1
    return covered


def strokes(rng: Random, grid: Grid) -> Tensor:
    """A few bent strokes with round ends, as a brush leaves them, [H, W] of truth."""
    covered = torch.zeros(len(grid[0]), grid[1].shape[1], dtype=torch.bool)
    for _ in range(rng.integers(STROKES[0], STROKES[1] + 1)):
        breadth, direction = rng.uniform(THIN, THICK), rng.uniform(0, 2 * np.pi)
        at = rng.uniform(0, 1, 2)
        for _ in range(rng.integers(BENDS[0], BENDS[1] + 1)):
            direction += rng.uniform(-1, 1)  # radians
            to = np.clip(at + rng.uniform(0.1, 0.4) * np.array([np.sin(direction), np.cos(direction)]), 0, 1)
            covered |= _distance(grid, at, to) <= breadth / 2
            at = to
    return covered


def _distance(grid: Grid, start: Point, end: Point) -> Tensor:
    """How far each pixel is from a straight line between two points, [H, W]."""
    down, across = (float(value) for value in end - start)
    length = max(down**2 + across**2, 1e-12)
    from_down, from_across = grid[0] - float(start[0]), grid[1] - float(start[1])
    along = ((from_down * down + from_across * across) / length).clamp(0, 1)
    return torch.hypot(from_down - along * down, from_across - along * across)


MASKS: dict[str, Callable[[Random, Grid], Tensor]] = {
    "rectangles": rectangles,
    "strokes": strokes,
    "ellipse": ellipse,
}


def random_mask(seed: int, number: int, size: tuple[int, int], shape: Callable[[float], str]) -> Tensor:
    """The mask of sample `number` of a run, [1, height, width] of zeros and ones, at least one of them 1.

    `size` is width and height in pixels. `shape` gives the name of one of `MASKS` for a number in [0, 1), or "" for the
    whole picture. The same at every size, but for the pixels' size.
    """
    rng = np.random.default_rng([seed, number, MASK])
    name = shape(float(rng.uniform()))
    width, height = size
    if not name:
        return torch.ones(1, height, width)
    across, down = ((torch.arange(side, dtype=torch.float64) + 0.5) / side for side in size)
    covered = MASKS[name](rng, (down[:, None], across[None, :]))
    covered[height // 2, width // 2] |= ~covered.any()
    return covered.float()[None]
