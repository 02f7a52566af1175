"""Pictures with room around them: what is put there before it is drawn, and the mask of it."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sfumato.images import to_levels, to_pictures, to_pixels
from sfumato.masks import filled_from_around
from sfumato.request import Outpaint

NOISE_SEED = 0  # one pattern for every picture, so that picture i of a request is the one of its seed alone


def extended(picture: Image.Image, outpaint: Outpaint) -> tuple[Image.Image, Image.Image]:
    """The picture with new parts at its sides, and their mask: white there, fading out over `feather` inside."""
    array = np.asarray(picture)
    sides = ((outpaint.top, outpaint.bottom), (outpaint.left, outpaint.right))
    new = np.pad(np.zeros(array.shape[:2], bool), sides, constant_values=True)
    whole = np.pad(array, (*sides, (0, 0)), mode="edge")
    if outpaint.fill == "around":
        pixels = filled_from_around(to_pixels([Image.fromarray(whole)]), torch.from_numpy(new).float()[None, None])
        whole = np.where(new[..., None], np.asarray(to_pictures(to_levels(pixels))[0]), whole)
    elif outpaint.fill == "mean":
        whole[new] = array.reshape(-1, 3).mean(0).round().astype(np.uint8)
    elif outpaint.fill == "noise":
        whole[new] = np.random.default_rng(NOISE_SEED).integers(0, 256, (int(new.sum()), 3), dtype=np.uint8)
    return Image.fromarray(whole), Image.fromarray(_mask(picture.size, outpaint))


def _mask(size: tuple[int, int], outpaint: Outpaint) -> NDArray[np.uint8]:
    """White for what is new; within the picture ((feather - distance) / feather)^2 of it, as ComfyUI fades."""
    width, height = size
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    distance = np.full((height, width), np.inf)  # to the nearest side that is extended
    for extent, away in (
        (outpaint.left, columns),
        (outpaint.right, width - columns),
        (outpaint.top, rows),
        (outpaint.bottom, height - rows),
    ):
        if extent:
            distance = np.minimum(distance, away)
    share = np.clip(1 - distance / max(outpaint.feather, 1e-9), 0, 1) ** 2
    inside = np.round(255 * share).astype(np.uint8)
    sides = ((outpaint.top, outpaint.bottom), (outpaint.left, outpaint.right))
    return np.pad(inside, sides, constant_values=255)
