"""Masks of pictures: connected components, and what is done to masks before they are counted. [B, H, W] booleans."""

import torch
import torch.nn.functional as F
from torch import Tensor


def components(mask: Tensor) -> Tensor:
    """A number for each pixel of a mask, [B, H, W] int64: the same one for pixels that touch, corners too; 0 outside.

    The number is one more than the last pixel of the component in reading order. Every pixel takes the largest number
    around it until nothing changes any more: as many rounds as the longest way through a component.
    """
    count, height, width = mask.shape
    order = torch.arange(1, height * width + 1, device=mask.device, dtype=torch.float64)  # exact up to 2^53
    labels = order.view(1, height, width).expand(count, -1, -1) * mask
    while True:
        spread = F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0] * mask
        if torch.equal(spread, labels):
            return labels.long()
        labels = spread


def necked(mask: Tensor, side: int, least: int) -> list[Tensor]:
    """The parts of one component [H, W] that are joined only by necks thinner than `side` pixels; itself if it is one.

    A part has at least `least` pixels that a square of `side` fits around; the others go to the part that they touch.
    """
    cores = components(_eroded(mask[None], side))
    sizes = torch.bincount(cores.flatten())
    sizes[0] = 0
    numbers = (sizes >= least).nonzero().flatten()
    if len(numbers) < 2:
        return [mask]
    parts = [cores[0] == number for number in numbers]
    while True:
        free = mask & ~torch.stack(parts).any(dim=0)
        grown = []
        for part in parts:
            more = _cross(part[None])[0] & free
            free = free & ~more
            grown.append(part | more)
        if all(torch.equal(*pair) for pair in zip(grown, parts, strict=True)):
            return grown
        parts = grown


def filled(mask: Tensor) -> Tensor:
    """The mask with its holes: what is outside of it and does not touch the picture's border, corners not counted."""
    outside = ~mask
    reached = torch.zeros_like(mask)
    for edge in (reached[:, :1], reached[:, -1:], reached[:, :, :1], reached[:, :, -1:]):
        edge.fill_(True)
    reached &= outside
    while True:
        grown = _cross(reached) & outside
        if torch.equal(grown, reached):
            return ~reached
        reached = grown


def opened(mask: Tensor, side: int, again: int = 0) -> Tensor:
    """The mask without what is thinner than `side` pixels (a square, eroded and grown again).

    What was taken is given back where it is no further than `again` pixels from what is left.
    """
    before, after = (side - 1) // 2, side // 2
    solid = _eroded(mask, side)[:, None].float()
    left = F.max_pool2d(F.pad(solid, (after, before, after, before)), side, stride=1)[:, 0] > 0
    for _ in range(again):
        left = _cross(left) & mask
    return left


def _eroded(mask: Tensor, side: int) -> Tensor:
    """Where a square of `side` pixels fits around; the outside of the picture counts as the mask."""
    before, after = (side - 1) // 2, side // 2
    return F.max_pool2d(F.pad((~mask)[:, None].float(), (before, after, before, after)), side, stride=1)[:, 0] == 0


def _cross(mask: Tensor) -> Tensor:
    """The mask and what lies beside it, above it or below it."""
    grown = mask.clone()
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    grown[:, :, 1:] |= mask[:, :, :-1]
    grown[:, :, :-1] |= mask[:, :, 1:]
    return grown
