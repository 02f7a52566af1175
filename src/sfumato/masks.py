"""What masks are for: the part of a picture that is worked on alone, and what is under a mask before it is repainted.

A mask is grey, white = repaint. A box is (left, top, right, bottom) in pixels, as Pillow has it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from sfumato.images import feather, mask_weights, to_levels, to_pixels

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Inset:
    """A picture and its mask, whole, and the box in it that is worked on alone."""

    picture: Image.Image
    mask: Image.Image
    box: Box

    def cut(self, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
        """Picture and mask within the box, scaled to `size`; unchanged where the box has that size."""
        picture, mask = self.picture.crop(self.box), self.mask.crop(self.box)
        if picture.size == size:
            return picture, mask
        # bilinear for the mask: Lanczos rings, and what is black must stay black
        return picture.resize(size, Image.Resampling.LANCZOS), mask.resize(size, Image.Resampling.BILINEAR)

    def spread(self, levels: Tensor, most: float) -> Tensor:
        """Levels [1, C, h, w] of the box, from 0 to `most`, in the whole picture [1, C, H, W]; 0 outside of the box."""
        left, top, right, bottom = self.box
        shape = (bottom - top, right - left)
        if levels.shape[-2:] != shape:
            levels = F.interpolate(levels, size=shape, mode="bicubic", antialias=True).clamp(0, most)
        whole = torch.zeros(1, levels.shape[1], self.picture.height, self.picture.width)
        whole[..., top:bottom, left:right] = levels
        return whole


def shares_of(mask: Image.Image, blur: float, steepness: float = 1.0) -> Tensor:
    """How much of what was drawn is taken in each pixel, [1, 1, H, W]: as white as the mask with its soft edge is.

    With a `steepness` above 1 all of it where the mask is lighter than its inverse.
    """
    return (mask_weights(feather(mask, blur)) * steepness).clamp(max=1.0)


def keep_outside(levels: Tensor, picture: Image.Image, weights: Tensor) -> Tensor:
    """Levels [1, 3, H, W] mixed by `weights` [1, 1, H, W] with the picture's own, which are exact where they are 0."""
    original = to_levels(to_pixels([picture])).round()
    return torch.where(weights == 0, original, weights * levels + (1 - weights) * original)


def inset(picture: Image.Image, mask: Image.Image, padding: int, size: tuple[int, int]) -> Inset:
    """The box around all that is not black in the mask, with padding, in the shape of `size` where there is room.

    An all black mask has the whole picture for its box.
    """
    left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
    left, right = max(left - padding, 0), min(right + padding, mask.width)
    top, bottom = max(top - padding, 0), min(bottom + padding, mask.height)
    width = max(right - left, round((bottom - top) * size[0] / size[1]))
    height = max(bottom - top, round((right - left) * size[1] / size[0]))
    left, right = _widened(left, right, width, mask.width)
    top, bottom = _widened(top, bottom, height, mask.height)
    return Inset(picture, mask, (left, top, right, bottom))


def _widened(start: int, stop: int, length: int, limit: int) -> tuple[int, int]:
    """A span of `length` around another one, within 0 and `limit`."""
    length = min(length, limit)
    start = min(max(start - (length - (stop - start)) // 2, 0), limit - length)
    return start, start + length


def inverted(mask: Image.Image) -> Image.Image:
    """The mask that repaints what this one keeps."""
    return ImageOps.invert(mask)


def filled_from_around(pixels: Tensor, unknown: Tensor) -> Tensor:
    """Pixels [B, 3, H, W] with the colours around where `unknown` [1, 1, H, W] is 1; the others as they are.

    What is near counts more; with nothing known all is 0, grey. The pyramid of Gortler et al. 1996, section 3.4.
    """
    known = (unknown < 1).to(pixels)
    filled = _pulled(pixels * known, known.expand(len(pixels), -1, -1, -1))
    return torch.where(known > 0, pixels, filled)


def _pulled(weighted: Tensor, weight: Tensor) -> Tensor:
    """Colours of weighted sums [B, 3, h, w] and weights [B, 1, h, w]; what has none takes those of coarser cells."""
    own = weighted / weight.clamp(min=1e-6)
    if max(weight.shape[-2:]) == 1 or bool((weight >= 1).all()):
        return own
    coarse_weight, coarse = (
        4 * F.avg_pool2d(each, 2, ceil_mode=True, count_include_pad=False) for each in (weight, weighted)
    )
    scale = coarse_weight.clamp(min=1.0)
    below = _pulled(coarse / scale, coarse_weight / scale)
    spread = F.interpolate(below, size=weight.shape[-2:], mode="bilinear", align_corners=False)
    covered = weight.clamp(max=1.0)
    return covered * own + (1 - covered) * spread
