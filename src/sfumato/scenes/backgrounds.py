"""Skies and grounds in the three styles, vectorised over scenes of one style. Nothing finer than an eighth of a picture
but edges, ink and the stars of the night, so that a small autoencoder can keep it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.scenes.palettes import INK, LANDS, PAPER
from sfumato.scenes.scene import Scene

STARS = 8
KNOTS = (8, 5)  # of the smooth noise, down and across: clouds are wider than high
BANDS = (0.34, 0.70)  # where the second and the third strip of a paper sky begin, as parts of the way to the horizon
PURER = 1.35  # how much purer a colour on paper is than a mere mixture
PAPER_SHADOW = 0.80  # how bright paper is beside the strip that lies over it


@dataclass(frozen=True)
class Backdrop:
    """What the styles draw: [N] scenes on a square grid. y [H, 1] and x [W] are pixel centres in picture widths; far,
    near and strips are the heights of edges, [N, 1, W]; colours are [N, 3, 1, 1], from top to bottom."""

    size: int
    y: Tensor
    x: Tensor
    horizon: Tensor
    far: Tensor
    near: Tensor
    strips: list[Tensor]
    sky: list[Tensor]
    far_colours: list[Tensor]
    near_colours: list[Tensor]
    glow: Tensor
    cloud: Tensor
    strengths: Tensor  # of glow, clouds, ripples and paper, [4, N, 1, 1]
    noise: Tensor  # smooth, about -1..1, [N, H, W]
    sun: Tensor  # where the glow is, [N, 1, 1]
    stars: Tensor  # how much starlight there is, [N, 1, H, W]; empty where no scene is at night


def backgrounds(scenes: Sequence[Scene], style: str, size: int, device: torch.device | str) -> Tensor:
    """Backgrounds [N, 3, size, size] in [0, 1] of scenes that all have the style `style`."""
    return STYLED[style](_backdrop(scenes, size, device))


def shaded(land: Backdrop) -> Tensor:
    """Soft light: gradients, a glow over the horizon, clouds, rounded hills, and ripples on water."""
    glowing, cloudy, rippled, _ = land.strengths
    y, noise = land.y, land.noise
    height = y / land.horizon  # 0 at the top, 1 at the horizon
    sky = _ramp(height, land.sky)  # [N, 3, H, 1]
    around = -(((y - land.horizon) / 0.22) ** 2)
    glow = glowing * around.exp() * (0.25 + 0.75 * (-(((land.x - land.sun) / 0.38) ** 2)).exp())
    picture = torch.lerp(sky, land.glow, glow[:, None])
    where = ((noise - 0.05) / 0.7).clamp(0, 1) * (1.25 - height).clamp(0, 1)
    picture = torch.lerp(picture, land.cloud, (cloudy * where)[:, None])
    if land.stars.numel():
        picture += land.stars * (1 - picture)
    ripple = rippled * torch.sin(42 * (y - land.horizon).clamp(min=0) ** 0.7 * math.tau / 6 + 2.5 * noise)
    mirrored = rippled * 1.6 * (-(((land.x - land.sun) / 0.13) ** 2)).exp()
    for edge, colours, deep in ((land.far, land.far_colours, 0.16), (land.near, land.near_colours, 0.30)):
        depth = y - edge  # [N, H, W]
        down = (depth / deep).clamp(0, 1)
        light = 1 + 0.07 * noise + ripple + mirrored * (1 - 0.5 * down)
        ground = torch.lerp(colours[0], colours[1], (down * (2 - down))[:, None]).mul_(light[:, None])
        picture = torch.lerp(picture, ground, _covered(depth, land.size)[:, None])
    return picture


def flat(land: Backdrop) -> Tensor:
    """Strips of plain paper, one over another, each with a thin shadow on the one behind it."""
    picture = land.sky[0].expand(-1, -1, land.size, land.size)
    colours = [*land.sky[1:], land.far_colours[0], land.near_colours[0]]
    for edge, colour in zip([*land.strips, land.far, land.near], colours, strict=True):
        depth = land.y - edge
        picture = picture * (1 - (1 - PAPER_SHADOW) * _covered(depth + 0.02, land.size)[:, None])
        picture = torch.lerp(picture, colour, _covered(depth, land.size)[:, None])
    return picture + 0.9 * land.stars * (1 - picture) if land.stars.numel() else picture


def outline(land: Backdrop) -> Tensor:
    """Coloured paper with ink lines along the ridges, and one step of shade on the near one."""
    paper = torch.tensor(PAPER, device=land.noise.device)[:, None, None]

    def pale(colour: Tensor) -> Tensor:
        """The colour thinned with paper, and made purer, for thinning greys it."""
        thin = torch.lerp(colour, paper, land.strengths[3, :, None])
        grey = thin.mean(dim=1, keepdim=True)
        return (grey + PURER * (thin - grey)).clamp(0, 1)

    picture = pale(land.sky[1]).expand(-1, -1, land.size, land.size)
    picture = torch.lerp(picture, pale(land.sky[2]), _covered(land.y - land.strips[1], land.size)[:, None])
    if land.stars.numel():
        picture = picture + land.stars * (1 - picture)
    shade = torch.lerp(land.near_colours[0], land.near_colours[1], 0.35)
    fills = ((land.far, land.far_colours[0]), (land.near, land.near_colours[0]), (land.near + 0.12, shade))
    for edge, colour in fills:
        picture = torch.lerp(picture, pale(colour), _covered(land.y - edge, land.size)[:, None])
    ink = torch.tensor(INK, device=picture.device)[:, None, None]
    for edge, width in ((land.far, 0.026), (land.near, 0.018)):
        line = (0.5 * (width - 2 * (land.y - edge).abs()) * land.size + 0.5).clamp(0, 1)
        picture = torch.lerp(picture, ink, line[:, None])
    return picture


STYLED: dict[str, Callable[[Backdrop], Tensor]] = {"shaded": shaded, "flat": flat, "outline": outline}


def pixel_centres(size: int, device: torch.device | str) -> Tensor:
    """Pixel centres in picture widths, [size]."""
    return (torch.arange(size, device=device) + 0.5) / size


def _covered(depth: Tensor, size: int) -> Tensor:
    """How much of each pixel lies deeper than an edge, for depths in picture widths."""
    return (depth * size + 0.5).clamp(0, 1)


def _ramp(height: Tensor, colours: list[Tensor]) -> Tensor:
    """Three colours from 0 over 0.6 to 1, [N, 3, H, 1] for heights [N, H, 1]."""
    height = height[:, None]
    upper = torch.lerp(colours[0], colours[1], (height / 0.6).clamp(0, 1))
    return torch.lerp(upper, colours[2], ((height - 0.6) / 0.4).clamp(0, 1))


def _backdrop(scenes: Sequence[Scene], size: int, device: torch.device | str) -> Backdrop:
    lands = [LANDS[scene.background] for scene in scenes]
    draws = [np.random.default_rng(scene.texture) for scene in scenes]
    chance = np.stack([rng.uniform(0, 1, 6) for rng in draws])
    noise = np.stack([rng.uniform(-1, 1, KNOTS) for rng in draws])

    def tensor(values: object) -> Tensor:
        return torch.tensor(np.asarray(values, dtype=np.float32), device=device)

    def colours(values: list[tuple[tuple[float, float, float], ...]]) -> list[Tensor]:
        return list(tensor(values)[..., None, None].unbind(dim=1))

    x = pixel_centres(size, device)
    horizon = tensor([scene.horizon for scene in scenes])[:, None, None]
    phase = tensor(chance * math.tau)[..., None, None].unbind(dim=1)
    swell = tensor([land.swell for land in lands])[..., None, None].unbind(dim=1)
    waves = tensor([land.waves for land in lands])[..., None, None].unbind(dim=1)
    fall = tensor([land.fall for land in lands])[:, None, None]

    def ridge(level: Tensor, number: int) -> Tensor:
        turn = math.tau * waves[number] * x
        wave = torch.sin(turn + phase[number]) + 0.4 * torch.sin(2.3 * turn + phase[number + 1])
        return level + swell[number] / 1.4 * wave

    strips = [b * horizon + 0.02 * torch.sin(math.tau * 0.9 * x + phase[3 + k]) for k, b in enumerate(BANDS)]
    return Backdrop(
        size=size,
        y=x[:, None],
        x=x,
        horizon=horizon,
        far=ridge(horizon, 0),
        near=ridge(horizon + fall, 1),
        strips=strips,
        sky=colours([land.sky for land in lands]),
        far_colours=colours([land.far for land in lands]),
        near_colours=colours([land.near for land in lands]),
        glow=tensor([land.glow for land in lands])[..., None, None],
        cloud=tensor([land.cloud for land in lands])[..., None, None],
        strengths=tensor([(land.glowing, land.cloudy, land.rippled, land.pale) for land in lands]).T[..., None, None],
        noise=_smooth(tensor(noise), size),
        sun=tensor(0.2 + 0.6 * chance[:, 5])[:, None, None],
        stars=_stars(scenes, x, draws),
    )


def _smooth(knots: Tensor, size: int) -> Tensor:
    """Noise through a grid of knots [N, h, w], by Gaussian weights that sum to one, [N, size, size]."""
    centres = pixel_centres(size, knots.device)[:, None]

    def weights(count: int) -> Tensor:
        spots = torch.linspace(-0.1, 1.1, count, device=knots.device)
        return (-((centres - spots) ** 2) / (2 * (0.55 * 1.2 / (count - 1)) ** 2)).softmax(dim=1)

    return 1.6 * weights(knots.shape[1]) @ knots @ weights(knots.shape[2]).T  # averaging shrinks it; 1.6 undoes that


def _stars(scenes: Sequence[Scene], grid: Tensor, draws: list[np.random.Generator]) -> Tensor:
    """Starlight in the skies of the night, elsewhere none: [N, 1, H, W]; empty where no scene is at night."""
    if all(scene.background != "night" for scene in scenes):
        return torch.empty(0)
    lights = np.stack([rng.uniform((0, 0, 0.5), (1, 1, 1), (STARS, 3)) for rng in draws])
    lights[:, :, 1] *= np.array([scene.horizon - 0.08 for scene in scenes])[:, None]
    lights[:, :, 2] *= np.array([scene.background == "night" for scene in scenes])[:, None]
    x, y, glow = torch.tensor(lights, dtype=torch.float32, device=grid.device)[..., None].unbind(dim=2)
    near_x, near_y = (-(((grid - x) / 0.013) ** 2)).exp(), (-(((grid - y) / 0.013) ** 2)).exp()  # [N, stars, size]
    return ((glow * near_y).transpose(1, 2) @ near_x)[:, None].clamp(max=1)
