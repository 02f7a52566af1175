"""The outlines of all kinds in all sizes as masks, and which of them a mask is most like."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.scenes.distances import union
from sfumato.scenes.painting import LINE
from sfumato.scenes.shapes import SHAPES
from sfumato.scenes.vocabulary import SIZES

UNSEEN = 0.5  # of the pixels that a template has in paint of its own and the mask has not: they may look like the sky
INK = 2 * LINE / 3  # of a picture width that ink lies outside of a thing


@dataclass(frozen=True)
class Template:
    """A kind in a size on a square grid of `side` pixels of a picture; its centre is the grid's.

    `whole` [side, side] is all of it, and `painted` what has the thing's own colour or a shade of it.
    """

    kind: str
    size: str
    whole: Tensor
    painted: Tensor


@dataclass(frozen=True)
class Match:
    """What a mask is most like, where its centre is (x right, y down, in pixels), and how much so, 0..1."""

    kind: str
    size: str
    x: float
    y: float
    likeness: float


@lru_cache(maxsize=4)
def templates(side: int, *, inked: bool) -> tuple[Template, ...]:
    """All kinds in all sizes for pictures of `side` pixels, with the ink around them or without."""
    found = []
    for kind, shape in SHAPES.items():
        for size, half in SIZES.items():
            reach = int((max(SIZES.values()) + INK) * side) + 2
            at = (torch.arange(-reach, reach + 1) / side) / half
            u, v = at.expand(len(at), -1), at[:, None].expand(-1, len(at))
            parts = shape(u, v)
            whole = union(*(distance for distance, _ in parts)) < (INK / half if inked else 0)
            painted = torch.zeros_like(whole)
            for distance, paint in parts:
                painted = torch.where(distance < 0, paint in ("main", "dark", "light"), painted)
            found.append(Template(kind, size, whole, painted))
    return tuple(found)


def best_match(whole: Tensor, painted: Tensor, among: tuple[Template, ...], search: int = 4) -> Match:
    """The template most like a component: the mean of two intersections over unions, at the best of all shifts.

    `whole` [H, W] is the component, `painted` the part of it in its main colour. The centre of mass of each template's
    own colour is laid on the component's and moved by `search` pixels at most. What a template has outside of the
    picture does not count.
    """
    masks = torch.stack([whole, painted]).float()  # [2, H, W]
    shapes = torch.stack([torch.stack([each.whole, each.painted]) for each in among]).float()  # [T, 2, K, K]
    side, reach = shapes.shape[-1], shapes.shape[-1] // 2
    centre = _centre(masks[1])
    offsets = torch.stack([_centre(shape[1]) - reach for shape in shapes])  # of each centre of mass, (y, x)
    first = (centre - offsets).round().long()  # [T, (y, x)]: where the template's own centre then lies
    low, high = first.amin(dim=0) - search, first.amax(dim=0) + search
    border = reach + search + side
    window = F.pad(torch.cat([masks, torch.ones_like(masks[:1])]), (border,) * 4)
    top, left = (low - reach + border).clamp(min=0).tolist()
    bottom, right = (high + reach + border + 1).tolist()
    window = window[:, top:bottom, left:right]
    shared = _correlate(window[:2], shapes)  # [T, 2, h, w]
    visible = _correlate(window[2:].expand(2, -1, -1), shapes)  # how much of the template lies in the picture
    both = masks.sum(dim=(1, 2))[:, None, None] + visible - shared
    fixed = shapes[:, :1] - shapes[:, 1:]  # what has paint of its own: glass, sails, leaves
    both[:, 0] -= UNSEEN * F.conv2d((window[2] - window[0])[None, None], fixed)[0]
    likeness = (shared / both.clamp(min=1)).mean(dim=1)
    rows = torch.arange(likeness.shape[1])[:, None] + (top - border + reach)
    columns = torch.arange(likeness.shape[2]) + (left - border + reach)
    near = ((rows - first[:, 0, None, None]).abs() <= search) & ((columns - first[:, 1, None, None]).abs() <= search)
    likeness = likeness.where(near, -1.0)
    flat = int(likeness.argmax())
    number, place = divmod(flat, likeness[0].numel())
    row, column = divmod(place, likeness.shape[2])
    best = among[number]
    return Match(
        best.kind,
        best.size,
        column + left - border + reach + 0.5,
        row + top - border + reach + 0.5,
        float(likeness.flatten()[flat]),
    )


def _correlate(masks: Tensor, shapes: Tensor) -> Tensor:
    """Sums of products of two masks [2, H, W] with two of each template [T, 2, K, K], [T, 2, h, w]."""
    return torch.stack([F.conv2d(masks[i][None, None], shapes[:, i : i + 1])[0] for i in range(2)], dim=1)


def _centre(mask: Tensor) -> Tensor:
    """Centre of mass (y, x) of [H, W], in pixels from the middle of the first."""
    total = mask.sum().clamp(min=1)
    rows, columns = (torch.arange(size, dtype=mask.dtype) for size in mask.shape)
    return torch.stack([(mask.sum(dim=1) * rows).sum(), (mask.sum(dim=0) * columns).sum()]) / total
