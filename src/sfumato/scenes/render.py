"""Scenes -> pictures: anti-aliased, vectorised over the scenes of a batch, on any device."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from sfumato.scenes.scene import Scene, Thing
from sfumato.scenes.shapes import SHAPES, union
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, SIZES

OUTLINE = {"shaded": 0.035, "flat": 0.02, "outline": 0.10}  # width in local units, half of it outside
INK = 0.10  # grey level that an outline is drawn with
LIGHT = 0.16  # how much brighter the lit side of a shaded thing is, and darker the other


def render(scenes: Sequence[Scene], size: int = 128, device: torch.device | str = "cpu") -> Tensor:
    """Pictures [B, 3, size, size] in [-1, 1], float32. The same scenes give the same pictures on the same machine."""
    picture = _backgrounds(scenes, size, device)
    deepest = max(len(scene.things) for scene in scenes)
    for layer in range(deepest):
        rows = [(index, scene) for index, scene in enumerate(scenes) if len(scene.things) > layer]
        rows.sort(key=lambda row: row[1].things[layer].kind)
        for kind, group in groupby(rows, key=lambda row: row[1].things[layer].kind):
            members = list(group)
            indices = torch.tensor([index for index, _ in members], device=device)
            things = [scene.things[layer] for _, scene in members]
            picture[indices] = _draw(picture[indices], kind, things, [scene for _, scene in members])
    return picture.clamp_(0, 1).mul_(2).sub_(1)


def _grid(size: int, device: torch.device | str) -> Tensor:
    """Pixel centres in picture widths, [size]."""
    return (torch.arange(size, device=device) + 0.5) / size


def _backgrounds(scenes: Sequence[Scene], size: int, device: torch.device | str) -> Tensor:
    sky = torch.tensor([BACKGROUNDS[s.background].sky for s in scenes], device=device)  # [B, 2, 3]
    ground = torch.tensor([BACKGROUNDS[s.background].ground for s in scenes], device=device)
    horizon = torch.tensor([s.horizon for s in scenes], device=device)[:, None]
    y = _grid(size, device)[None]  # [1, H]
    above = (y / horizon).clamp(0, 1)[..., None]
    below = ((y - horizon) / (1 - horizon)).clamp(0, 1)[..., None]
    coverage = ((horizon - y) * size + 0.5).clamp(0, 1)[..., None]
    column = coverage * torch.lerp(sky[:, :1], sky[:, 1:], above)
    column += (1 - coverage) * torch.lerp(ground[:, :1], ground[:, 1:], below)  # [B, H, 3]
    picture = column.transpose(1, 2)[..., None].expand(-1, -1, -1, size).clone()
    for index, scene in enumerate(scenes):
        if scene.background == "night":
            _sprinkle(picture[index], scene, size)
    return picture


def _sprinkle(picture: Tensor, scene: Scene, size: int) -> None:
    """Small stars in a night sky, at places that the scene's texture seed names; written into [3, H, W]."""
    rng = np.random.default_rng(scene.texture)
    grid = _grid(size, picture.device)
    for x, y, glow in rng.uniform((0, 0, 0.3), (1, scene.horizon - 0.04, 0.8), (14, 3)):
        near = (-(((grid[:, None] - y) ** 2 + (grid[None] - x) ** 2) / 0.006**2)).exp()
        picture += glow * near * (1 - picture)


def _draw(picture: Tensor, kind: str, things: list[Thing], scenes: list[Scene]) -> Tensor:
    """The pictures [N, 3, H, W] in [0, 1] with one thing of `kind` drawn over each."""
    device, size = picture.device, picture.shape[-1]
    column = [
        [t.x, t.y, SIZES[t.size], OUTLINE[s.style], s.style == "shaded"] for t, s in zip(things, scenes, strict=True)
    ]
    x, y, half, width, shaded = torch.tensor(column, dtype=torch.float32, device=device).T[..., None, None].unbind()
    main = torch.tensor([COLOURS[t.colour] for t in things], device=device) + _tint(scenes, device)
    main = main.clamp(0, 1)[..., None, None]  # [N, 3, 1, 1]
    grid = _grid(size, device)
    u, v = (grid[None, None, :] - x) / half, (grid[None, :, None] - y) / half
    u, v = u.expand(-1, size, -1), v.expand(-1, -1, size)
    pixels = half * size  # per local unit
    light = 1 - LIGHT * shaded * (0.6 * u + 0.8 * v).clamp(-1.3, 1.3)
    silhouette = None
    for distance, paint in SHAPES[kind](u, v):
        coverage = (0.5 - distance * pixels).clamp(0, 1)[:, None]
        colour = _paint(paint, main) * light[:, None]
        picture = torch.lerp(picture, colour.expand_as(picture), coverage)
        silhouette = distance if silhouette is None else torch.minimum(silhouette, distance)
    assert silhouette is not None
    line = ((width / 2 - silhouette.abs()) * pixels + 0.5).clamp(0, 1)
    return torch.lerp(picture, torch.full_like(picture, INK), line[:, None])


def _tint(scenes: list[Scene], device: torch.device) -> Tensor:
    """A small deviation of each thing's colour, [N, 3]."""
    draws = np.stack([np.random.default_rng([s.texture, 1]).uniform(-0.03, 0.03, 3) for s in scenes])
    return torch.tensor(draws, dtype=torch.float32, device=device)


def _paint(paint: str | tuple[float, float, float], main: Tensor) -> Tensor:
    if paint == "main":
        return main
    if paint == "dark":
        return main * 0.62
    if paint == "light":
        return main + (1 - main) * 0.55
    return torch.tensor(paint, device=main.device)[None, :, None, None]


def layout(scenes: Sequence[Scene], size: int = 16) -> tuple[Tensor, Tensor]:
    """What each cell of a size x size grid shows: (kind, colour), [B, size, size] uint8; 0 is background.

    Numbers count from 1 in the order of `KINDS` and `COLOURS`; a cell belongs to the thing over its centre.
    """
    grid = _grid(size, "cpu")
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
