"""What a picture's background and style are, by palettes and statistics in closed form; and what is not background.

Nothing here is learnt: the palettes are those of empty scenes as the renderer draws them.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.scenes.render import render
from sfumato.scenes.scene import Scene
from sfumato.scenes.vocabulary import BACKGROUNDS, STYLES

SIDE = 64  # pixels that pictures are averaged down to
EMPTY = 12  # scenes without things to a palette
HORIZONS = (0.56, 0.60, 0.64, 0.68)  # in picture widths, over what scenes have
REACH = 1  # rows above and below whose colours a row may have as well
COLUMNS = 8  # of an empty scene, every eighth is looked at
SHADOWS = (0.88, 0.76, 0.64)  # what a thing's shadow leaves of a background
FAR = 0.25  # a colour that is further from a palette than this is simply not in it
INKED = 0.4  # an ink line has less than six tenths of the light around it; the shadow of paper has eight
SLOPE = 0.012  # sum over channels of what a soft sky changes by in a twentieth of the picture
INKY = 0.3  # the brightest channel of ink and of the edges of its lines, which no land has in an outline drawing
COARSE = 4  # pixels: every fourth one, down and across, tells which background it is


@dataclass(frozen=True)
class Land:
    """A background and a style, and where the horizon is, in picture widths."""

    background: str
    style: str
    horizon: float


def style_of(colours: Tensor) -> str:
    """The style of a picture [3, H, W] in [0, 1]: ink along the ridges, else whether its sky changes by steps.

    Ink: in seven columns of ten, below the sky, a pixel has less than 1 - `INKED` of the light of the darker one of
    those a twentieth above and below it. Steps: three rows in ten of the upper half are as the row a twentieth
    below them, by the medians of rows, which a thing does not move.
    """
    size = colours.shape[-1]
    reach = max(1, round(size / 20))
    light = colours.mean(dim=0)
    around = torch.minimum(light[: -2 * reach], light[2 * reach :]).clamp(min=0.05)
    dip = 1 - light[reach:-reach] / around  # [H - 2 reach, W]
    ridges = dip[round(0.45 * size) - reach : round(0.9 * size) - reach].amax(dim=0)
    if float(ridges.quantile(0.3)) > INKED:
        return "outline"
    rows = colours.median(dim=2).values  # [3, H]
    slope = (rows[:, reach:] - rows[:, :-reach]).abs().sum(dim=0)[: size // 2]
    return "shaded" if float(slope.quantile(0.3)) > SLOPE else "flat"


def land_of(colours: Tensor, style: str) -> Land:
    """The background and horizon whose palettes are nearest to a picture [3, SIDE, SIDE] in [0, 1]."""
    choices = [Land(background, style, horizon) for background in BACKGROUNDS for horizon in HORIZONS]
    rows = slice(COARSE // 2, None, COARSE)
    seen = colours[:, rows, rows].permute(1, 2, 0)  # [rows, columns, 3]
    palettes = torch.stack([palette(choice)[rows] for choice in choices])  # [choices, rows, colours, 3]
    away = torch.cdist(seen, palettes).amin(dim=-1).clamp(max=FAR).mean(dim=(1, 2))
    return choices[int(away.argmin())]


def strangeness(colours: Tensor, land: Land) -> Tensor:
    """How far each pixel of [3, SIDE, SIDE] in [0, 1] is from the land's colours in its row, in shadow or not."""
    shades = torch.tensor([1.0, *SHADOWS])
    paints = palette(land)[:, :, None] * (shades if land.style != "outline" else shades[:1])[:, None]
    away = torch.cdist(colours.permute(1, 2, 0), paints.flatten(1, 2))  # [rows, columns, colours]
    if land.style == "outline":
        away = away + (palette(land).amax(dim=-1) < INKY)[:, None]  # lines are taken out later, for they are thin
    return away.amin(dim=-1)


@lru_cache(maxsize=len(BACKGROUNDS) * len(STYLES) * len(HORIZONS))
def palette(land: Land) -> Tensor:
    """The colours of each row of a land without things, and of the rows beside it, [SIDE, colours, 3] in [0, 1]."""
    empty = Scene((), land.background, land.style, land.horizon, 0)
    drawn = render([replace(empty, texture=texture) for texture in range(EMPTY)], 2 * SIDE)
    small = F.avg_pool2d((drawn + 1) / 2, 2)[..., 1::COLUMNS]
    rows = F.pad(small, (0, 0, REACH, REACH), mode="replicate").unfold(2, 2 * REACH + 1, 1)  # [N, 3, H, W, near]
    return rows.permute(2, 0, 3, 4, 1).flatten(1, 3).contiguous()
