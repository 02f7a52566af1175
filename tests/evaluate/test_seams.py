"""Steps across the borders of masks, on pictures where they are known."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sfumato.evaluate.seams import outside_unchanged, seam

SIDE = 32


def masked() -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rectangle((8, 12, 19, 23), fill=255)
    return mask


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.repeat(values[..., None], 3, axis=2).astype(np.uint8))


def ramp() -> np.ndarray:
    """Three levels a pixel, down as across."""
    return 3 * (np.arange(SIDE) + np.arange(SIDE)[:, None])


def test_a_ramp_has_no_seam() -> None:
    found = seam("model", [grey(ramp())], [masked()])
    assert (found.across, found.beside, found.ratio) == (3, 3, 1)


def test_a_part_that_is_brighter_has_a_seam_of_so_much() -> None:
    """Ten levels more inside: 13 across on the sides where the ramp goes up, 7 where it goes down; 10 on average."""
    inside = np.asarray(masked()) > 0
    found = seam("model", [grey(ramp() + 10 * inside)], [masked()])
    assert found.across == pytest.approx(10)
    assert found.beside == pytest.approx(3)


def test_where_nothing_changes_there_is_no_ratio() -> None:
    assert math.isnan(seam("model", [grey(np.zeros((SIDE, SIDE)))], [masked()]).ratio)


def test_all_pictures_count_alike() -> None:
    found = seam("model", [grey(ramp()), grey(np.zeros((SIDE, SIDE)))], [masked(), masked()])
    assert (found.pictures, found.across, found.beside) == (2, 1.5, 1.5)


def test_bytes_inside_of_the_mask_may_change_and_those_outside_may_not() -> None:
    before = grey(ramp())
    for where, same in (((8, 12), True), ((19, 23), True), ((7, 12), False), ((20, 23), False)):
        after = before.copy()
        after.putpixel(where, (255, 0, 0))
        assert outside_unchanged(before, after, masked()) is same
