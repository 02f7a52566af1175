"""What must be seen in a picture: which colour a thing has, that it stands out, and which style it is drawn in."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.scenes.distances import union
from sfumato.scenes.render import render
from sfumato.scenes.scene import Scene, Thing, scene
from sfumato.scenes.shapes import SHAPES
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, SIZES, STYLES

SIDE = 128
FLAT = 1 / 255  # a block whose lightness varies less is of one colour in a file too
CONTRAST = 12.0  # in CIELAB; 2.3 is just noticeable side by side, Mahy et al. 1994
RIGHT = 0.98


def lab(rgb: Tensor) -> Tensor:
    """CIELAB of sRGB [..., 3] in [0, 1], white D65. IEC 61966-2-1 and CIE 15."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / torch.tensor([0.95047, 1.0, 1.08883])
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """Renders [B, 3, H, W] in [0, 1]."""
    return torch.cat([(render(scenes[at : at + 32], SIDE) + 1) / 2 for at in range(0, len(scenes), 32)])


def local(thing: Thing) -> tuple[Tensor, Tensor]:
    """The pixel centres in the thing's own coordinates, u and v, [H, W]."""
    grid = (torch.arange(SIDE) + 0.5) / SIDE
    half = SIZES[thing.size]
    u, v = torch.meshgrid((grid - thing.x) / half, (grid - thing.y) / half, indexing="xy")
    return u, v


def main_part(thing: Thing) -> Tensor:
    """Which pixels show the part that has the thing's own colour, [H, W]."""
    shown = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for distance, paint in SHAPES[thing.kind](*local(thing)):
        shown = (distance < 0) | shown if paint == "main" else shown & (distance > 0)
    return shown


def named(mean: Tensor) -> str:
    """The colour of the vocabulary nearest to an RGB, in CIELAB."""
    far = (lab(torch.tensor(list(COLOURS.values()))) - lab(mean)).norm(dim=-1)
    return list(COLOURS)[int(far.argmin())]


def around(values: Tensor, reach: int = 3) -> Tensor:
    """How far apart the CIELAB colours within `reach` pixels of each pixel are, [H, W], for colours [H, W, 3]."""
    planes = values.permute(2, 0, 1)[None]
    high, low = (F.max_pool2d(sign * planes, 2 * reach + 1, stride=1, padding=reach) for sign in (1, -1))
    return (high + low)[0].norm(dim=0)


def test_lab_is_right_for_colours_of_known_coordinates() -> None:
    """Lindbloom's calculator, D65: sRGB red, and a grey whose L* follows from Y alone."""
    torch.testing.assert_close(lab(torch.tensor([1.0, 0, 0])), torch.tensor([53.24, 80.09, 67.20]), rtol=0, atol=0.02)
    torch.testing.assert_close(lab(torch.tensor([0.5] * 3)), torch.tensor([53.39, 0.0, 0.0]), rtol=0, atol=0.02)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("style", STYLES)
def test_the_mean_colour_of_a_thing_is_nearest_to_its_name_of_all_eight(style: str, size: str) -> None:
    names = list(product(KINDS, COLOURS, BACKGROUNDS))
    scenes = [
        Scene((Thing(kind, colour, size, 0.5, 0.55),), land, style, 0.6, number)
        for number, (kind, colour, land) in enumerate(names)
    ]
    masks = {kind: main_part(Thing(kind, "red", size, 0.5, 0.55)) for kind in KINDS}
    wrong = [
        (name, seen)
        for name, picture in zip(names, pictures(scenes), strict=True)
        if (seen := named(picture[:, masks[name[0]]].mean(dim=1))) != name[1]
    ]
    assert wrong == []


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_colour_stands_out_from_sky_and_ground(background: str, style: str) -> None:
    """Within three pixels of the silhouette there are two colours far apart, nearly all the way round it."""
    faint = []
    for colour, y in product(COLOURS, (0.3, 0.8)):
        thing = Thing("heart", colour, "medium", 0.5, y)
        drawn = Scene((thing,), background, style, 0.58, 5)
        edge = union(*(d for d, _ in SHAPES["heart"](*local(thing)))).abs() * SIZES["medium"] * SIDE < 0.8
        with_it, without = (around(lab(p.permute(1, 2, 0))) for p in pictures([drawn, replace(drawn, things=())]))
        seen = float(with_it[edge].quantile(0.1))
        assert float(without[edge].median()) < seen  # the measure is of the thing, not of what lies behind it
        if seen < CONTRAST:
            faint.append((colour, y, round(seen, 1)))
    assert faint == []


def block_statistics(drawn: Tensor) -> Tensor:
    """What 16 x 16 blocks of pictures [B, 3, 128, 128] say of their style, [B, features]: how dark the darkest pixels
    of blocks are, how much blocks vary, and how many of them are of one colour."""
    luma = drawn.mean(dim=1)
    blocks = luma.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).flatten(1, 2)  # [B, 256, 64]
    spread, darkest, middle = blocks.std(dim=2), blocks.amin(dim=2), blocks.median(dim=2).values
    parts = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    quantiles = [values.quantile(parts, dim=1).T for values in (spread, middle - darkest)]
    return torch.cat([*quantiles, (spread < FLAT).float().mean(dim=1, keepdim=True)], dim=1)


def low_statistics(drawn: Tensor) -> Tensor:
    """What a 32 x 32 version says, [B, features]: how far neighbours are apart, down and across."""
    low = F.avg_pool2d(drawn, 4)
    down, across = low.diff(dim=2).abs().amax(dim=1).flatten(1), low.diff(dim=3).abs().amax(dim=1).flatten(1)
    parts = torch.tensor([0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.87, 0.93])
    steps = torch.cat([values.quantile(parts, dim=1).T for values in (down, across)], dim=1)
    return (steps + 0.002).log()


def guessed(features: Tensor, known: Tensor, styles: Tensor) -> Tensor:
    """Fisher's discriminant: the class whose mean over the `known` is nearest, in the metric of their pooled spread."""
    means = torch.stack([known[styles == number].mean(dim=0) for number in range(len(STYLES))])
    within = torch.cov((known - means[styles]).T) + 1e-6 * torch.eye(known.shape[1])
    metric = torch.linalg.inv(within)
    apart = features[:, None] - means
    return torch.einsum("bsf,fg,bsg->bs", apart, metric, apart).argmin(dim=1)


@pytest.mark.parametrize("statistics", [block_statistics, low_statistics])
def test_the_style_shows_in_simple_statistics_of_the_whole_picture(statistics) -> None:  # type: ignore[no-untyped-def]
    """Of 300 scenes, by a rule learned from 300 others. Styles that differ only in a thing's line do not come near."""

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        styles = np.arange(300) % len(STYLES)
        scenes = [replace(scene(seed, i, counts=(0.6, 0.4)), style=list(STYLES)[s]) for i, s in enumerate(styles)]
        return statistics(pictures(scenes)), torch.from_numpy(styles)

    known, answers = draw(70)
    features, styles = draw(71)
    assert float((guessed(features, known, answers) == styles).float().mean()) >= RIGHT


def test_a_flat_sheet_has_no_gradients_and_a_shaded_one_no_flat_blocks() -> None:
    scenes = [replace(scene(72, i), things=()) for i in range(60)]
    share = {
        style: block_statistics(pictures([replace(drawn, style=style) for drawn in scenes]))[:, -1] for style in STYLES
    }
    assert float(share["flat"].min()) > 0.4
    assert float(share["shaded"].max()) < 0.3
