"""Where in a picture each prompt of a request counts: its own, and those of its regions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato.images import RESIZES, mask_weights
from sfumato.operations import Canvas
from sfumato.request import Region


def places(regions: Sequence[Region], masks: Sequence[Image.Image | None], canvas: Canvas) -> tuple[Tensor, ...]:
    """How much the request's own prompt counts in each latent cell, [1, 1, h, w], then each region's; together 1.

    A cell that is partly in a region counts in part. Where regions overlap they share the place, and where they leave
    something of it the request's own prompt has the rest. `masks` are grey pictures, None for regions with an area.
    """
    shares = [
        F.avg_pool2d(canvas.pad(_within(region, mask, canvas)), canvas.stride) * region.weight
        for region, mask in zip(regions, masks, strict=True)
    ]
    total = torch.stack(shares).sum(0)
    shares = [share / total.clamp_min(1.0) for share in shares]
    return ((1 - total).clamp_min(0.0), *shares)


def _within(region: Region, mask: Image.Image | None, canvas: Canvas) -> Tensor:
    """Which pixels are in a region, [1, 1, H, W] in 0 to 1."""
    if mask is not None:
        return mask_weights(RESIZES["crop"](mask, canvas.width, canvas.height))
    assert region.area is not None
    left, top, width, height = region.area
    columns = _covered(canvas.width, left, left + width)
    return (_covered(canvas.height, top, top + height)[:, None] * columns)[None, None]


def _covered(size: int, first: float, last: float) -> Tensor:
    """How much of each of so many pixels is between two places, from 0 to 1."""
    edges = torch.arange(size + 1, dtype=torch.float64)
    inside = edges.clamp(first * size, last * size)
    return (inside[1:] - inside[:-1]).float()
