"""Whether the border of a repainted part can be seen: steps across it, against steps beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BESIDE = 3  # pixels on both sides of a border whose steps it is compared with


@dataclass(frozen=True)
class Seam:
    """Mean steps of neighbouring pixels, in levels of 255: `across` the masks' borders, and `beside` them."""

    source: str
    pictures: int
    across: float
    beside: float

    @property
    def ratio(self) -> float:
        """1 where the border is like its surroundings, more where it shows; nan where nothing changes beside it."""
        return self.across / self.beside if self.beside else float("nan")


def seam(source: str, pictures: Sequence[Image.Image], masks: Sequence[Image.Image]) -> Seam:
    """The mean steps over all the pictures' borders. Pictures and masks (white = repainted) are of one size."""
    found = [_steps(picture, mask) for picture, mask in zip(pictures, masks, strict=True)]
    across, beside = (np.concatenate([each[i] for each in found]) for i in (0, 1))
    return Seam(source, len(pictures), _mean(across), _mean(beside))


def outside_unchanged(before: Image.Image, after: Image.Image, mask: Image.Image) -> bool:
    """Are all bytes where the mask is black the same?"""
    where = np.asarray(mask.convert("L")) == 0
    first, second = (np.asarray(picture.convert("RGB")) for picture in (before, after))
    return bool((first[where] == second[where]).all())


def _steps(picture: Image.Image, mask: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The steps across the border and beside it, over both directions and the mean of the channels."""
    levels = np.asarray(picture.convert("RGB")).astype(np.float64)
    inside = np.asarray(mask.convert("L")) > 0
    across, beside = [], []
    for turned, where in ((levels, inside), (levels.transpose(1, 0, 2), inside.T)):
        steps = np.abs(np.diff(turned, axis=1)).mean(axis=2)
        crossing = where[:, 1:] != where[:, :-1]
        near = crossing.copy()
        for by in range(1, BESIDE + 1):
            near[:, by:] |= crossing[:, :-by]
            near[:, :-by] |= crossing[:, by:]
        across.append(steps[crossing])
        beside.append(steps[near & ~crossing])
    return np.concatenate(across), np.concatenate(beside)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
