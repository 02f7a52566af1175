"""Scenes -> pictures: anti-aliased, vectorised over the scenes of a batch, on any device."""

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.scenes.backgrounds import backgrounds, pixel_centres
from sfumato.scenes.distances import union
from sfumato.scenes.painting import PAINTERS, Brush
from sfumato.scenes.palettes import DARKER, PALER
from sfumato.scenes.scene import Scene, Thing
from sfumato.scenes.shapes import SHAPES
from sfumato.scenes.vocabulary import COLOURS, KINDS, SIZES

TINT = 0.02  # how far a thing's colour may lie from its palette entry
MARGIN = 0.11  # of a picture width that shadows and ink may reach beyond a thing
WIDEST = max(SIZES.values()) + MARGIN


def render(scenes: Sequence[Scene], size: int = 128, device: torch.device | str = "cpu") -> Tensor:
    """Pictures [B, 3, size, size] in [-1, 1], float32. The same scenes give the same pictures on the same machine."""
    picture = torch.empty(len(scenes), 3, size, size, device=device)
    numbered = list(enumerate(scenes))
    for style, group in groupby(sorted(numbered, key=lambda row: row[1].style), key=lambda row: row[1].style):
        indices, members = zip(*group, strict=True)
        picture[list(indices)] = backgrounds(members, style, size, device)
    border = math.ceil(WIDEST * size) + 1  # so that the window of a thing at the edge lies inside too
    picture = F.pad(picture, (border, border, border, border), mode="replicate")
    for layer in range(max((len(scene.things) for scene in scenes), default=0)):
        rows = [(index, scene, scene.things[layer]) for index, scene in numbered if len(scene.things) > layer]
        rows.sort(key=lambda row: (row[2].kind, row[1].style))
        for _, alike in groupby(rows, key=lambda row: (row[2].kind, row[1].style)):
            _draw(picture, border, list(alike))
    picture = picture[:, :, border:-border, border:-border].contiguous()
    return picture.clamp_(0, 1).mul_(2).sub_(1)


def _draw(picture: Tensor, border: int, rows: list[tuple[int, Scene, Thing]]) -> None:
    """Draw things of one kind and style, one a picture, into pictures [B, 3, H, W] in [0, 1] with a border."""
    device, size = picture.device, picture.shape[-1] - 2 * border
    things = [thing for _, _, thing in rows]
    reach = math.ceil((max(SIZES[thing.size] for thing in things) + MARGIN) * size)
    left = [math.floor(thing.x * size) - reach for thing in things]
    top = [math.floor(thing.y * size) - reach for thing in things]
    windows = [
        picture[index, :, border + t : border + t + 2 * reach, border + x : border + x + 2 * reach]
        for (index, _, _), t, x in zip(rows, top, left, strict=True)
    ]
    numbers = [
        (t.x, t.y, SIZES[t.size], x, y, t.y + SIZES[t.size] > s.horizon + 0.04)
        for (_, s, t), x, y in zip(rows, left, top, strict=True)
    ]
    columns = torch.tensor(numbers, dtype=torch.float32, device=device).T[..., None, None]
    x, y, half, first_x, first_y, grounded = columns.unbind()
    steps = torch.arange(2 * reach, device=device) + 0.5
    u = (((first_x + steps) / size - x) / half).expand(-1, 2 * reach, -1)
    v = (((first_y + steps[:, None]) / size - y) / half).expand(-1, -1, 2 * reach)
    tint = np.stack([np.random.default_rng([scene.texture, 1]).uniform(-TINT, TINT, 3) for _, scene, _ in rows])
    main, dark, light = (
        torch.tensor(np.array([paints[t.colour] for t in things]) + tint, dtype=torch.float32, device=device).clamp(
            0, 1
        )[..., None, None]
        for paints in (COLOURS, DARKER, PALER)
    )
    brush = Brush(u, v, half * size, size, main, dark, light, grounded)
    painted = PAINTERS[rows[0][1].style](torch.stack(windows), SHAPES[things[0].kind](u, v), brush)
    for window, drawn in zip(windows, painted, strict=True):
        window.copy_(drawn)


def layout(scenes: Sequence[Scene], size: int = 16) -> tuple[Tensor, Tensor]:
    """What each cell of a size x size grid shows: (kind, colour), [B, size, size] uint8; 0 is background.

    Numbers count from 1 in the order of `KINDS` and `COLOURS`; a cell belongs to the thing over its centre.
    """
    grid = pixel_centres(size, "cpu")
    kinds = torch.zeros(len(scenes), size, size, dtype=torch.uint8)
    colours = torch.zeros_like(kinds)
    for index, drawn in enumerate(scenes):
        for thing in drawn.things:
            half = SIZES[thing.size]
            u = ((grid[None, :] - thing.x) / half).expand(size, -1)
            v = ((grid[:, None] - thing.y) / half).expand(-1, size)
            inside = union(*(distance for distance, _ in SHAPES[thing.kind](u, v))) < 0
            kinds[index][inside] = 1 + list(KINDS).index(thing.kind)
            colours[index][inside] = 1 + list(COLOURS).index(thing.colour)
    return kinds, colours
