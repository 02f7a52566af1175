"""Things in the three styles: a window of a picture, the parts of a thing in it, and the thing painted over it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.scenes.palettes import INK
from sfumato.scenes.shapes import RGB, RUBBER, Part

LINE = 0.026  # width of an ink line, in picture widths: three pixels of 128; two thirds of it lie outside
CEL_SHADE = 0.45  # how far the shaded side of a cartoon goes to the darker paint
BLACK_LIT = 0.22  # how far the lit side of a black thing goes to grey in a cartoon
BULGE = 0.62  # how far from its edge a shaded part is round, in local units
RELIEF = 0.3  # how much of that swelling the other parts have
GREY_SHADE = (0.52, 0.52, 0.58)  # what full shade leaves of glass, wood and the like
OWN_SHADE: dict[str | RGB, float] = {"main": 1.0, "dark": 1.0, "light": 0.5}  # how far a shade has the thing's colour
SUN = (0.47, 0.57, 0.67)  # the light's direction: from the left, from above, from the viewer; of length 1


@dataclass(frozen=True)
class Brush:
    """What all painters are given of N things of one kind.

    u, v [N, H, W] are local; `pixels` [N, 1, 1] how many of them a local unit has; `size` the side of the picture.
    `main`, `dark` and `light` are the things' paints, [N, 3, 1, 1]. `grounded` [N, 1, 1] is 1 where a thing stands on
    the ground.
    """

    u: Tensor
    v: Tensor
    pixels: Tensor
    size: int
    main: Tensor
    dark: Tensor
    light: Tensor
    grounded: Tensor

    @property
    def black(self) -> Tensor:
        """Which things are black, [N, 1, 1, 1]."""
        return self.main.amax(dim=1, keepdim=True) < 0.3

    def paint(self, name: str | RGB) -> Tensor:
        if isinstance(name, str):
            return {"main": self.main, "dark": self.dark, "light": self.light}[name]
        return torch.tensor(name, device=self.u.device)[None, :, None, None]

    def covered(self, distance: Tensor) -> Tensor:
        """How much of each pixel is inside, [N, 1, H, W]."""
        return (0.5 - distance * self.pixels).clamp(0, 1)[:, None]


def shaded(picture: Tensor, parts: list[Part], brush: Brush) -> Tensor:
    """Soft relief: the thing swells up, and light falls on it from the upper left."""
    silhouette = _silhouette(parts)
    picture = _shadow(picture, _moved(_grown(silhouette, brush), brush, 4 / 128), brush, soft=0.4, depth=0.36)
    foot = torch.where(silhouette < 0, brush.v, -1).amax(dim=(1, 2), keepdim=True)
    spot = torch.hypot((brush.u - 0.12) / 1.05, (brush.v - foot) / 0.2)
    picture = picture * (1 - 0.42 * brush.grounded * (1.15 - spot).clamp(0, 1))[:, None]
    height, own = torch.zeros_like(silhouette), torch.zeros_like(silhouette)[:, None]
    for distance, name in parts:
        covered = brush.covered(distance)
        picture = torch.lerp(picture, brush.paint(name), covered)
        own = torch.lerp(own, torch.tensor(OWN_SHADE.get(name, 0.0), device=own.device), covered)
        inwards = (-distance / BULGE).clamp(0, 1)
        height += inwards * (2 - inwards) * (1 if name in ("main", "dark") else RELIEF)
    light = _light(height, brush) - 0.10 * (0.6 * brush.u + 0.8 * brush.v)
    inside = brush.covered(silhouette)
    shade = inside * (1.9 * (1 - light).clamp(0, 0.6))[:, None]
    shine = inside * (0.55 * (light - 1).clamp(0, 0.8))[:, None]
    grey = torch.tensor(GREY_SHADE, device=picture.device)[:, None, None]
    deepest = 0.12 + 0.75 * (brush.dark / brush.main.clamp(min=0.1)).clamp(0.3, 0.9)
    picture = picture * (1 - shade * (1 - torch.lerp(grey.expand_as(deepest), deepest, own)))
    return torch.lerp(picture, torch.ones_like(picture), shine)


def flat(picture: Tensor, parts: list[Part], brush: Brush) -> Tensor:
    """Cut paper: every part of one colour, a lit edge at the upper left, and a shadow at the lower right."""
    silhouette = _silhouette(parts)
    picture = _shadow(picture, _moved(_grown(silhouette, brush), brush, 3 / 128), brush, soft=0.05, depth=0.42)
    for distance, name in parts:
        picture = torch.lerp(picture, brush.paint(name), brush.covered(distance))
    edge = (brush.covered(silhouette) - brush.covered(_moved(silhouette, brush, 1 / 128))).clamp(min=0)
    return picture + 0.45 * edge * (1 - picture)


def outline(picture: Tensor, parts: list[Part], brush: Brush) -> Tensor:
    """A cartoon: one step of shade, ink round the thing and thinner ink round its parts."""
    ink = torch.tensor(INK, device=picture.device)[:, None, None]
    units = brush.size / brush.pixels  # local units in a picture width
    inner = torch.where(brush.black, brush.light, ink)  # ink would not show on black
    lit = torch.where(brush.black, brush.light, brush.main)
    shadow = brush.covered(1.02 - torch.hypot(brush.u + 0.42, brush.v + 0.5))  # outside of a disc at the upper left
    for number, (distance, name) in enumerate(parts):
        colour = brush.paint(name)
        if name == "main":
            colour = torch.lerp(torch.lerp(colour, lit, BLACK_LIT), brush.dark, CEL_SHADE * shadow)
        picture = torch.lerp(picture, colour, brush.covered(distance))
        if number and name != RUBBER:
            picture = torch.lerp(picture, inner, brush.covered(distance.abs() - 0.25 * LINE * units))
    rim = (_silhouette(parts) - LINE * units / 6).abs() - LINE * units / 2
    return torch.lerp(picture, ink, brush.covered(rim))


Painter = Callable[[Tensor, list[Part], Brush], Tensor]

PAINTERS: dict[str, Painter] = {"shaded": shaded, "flat": flat, "outline": outline}
"""The styles: each gives the picture with a thing over it."""


def _silhouette(parts: list[Part]) -> Tensor:
    result = parts[0][0]
    for distance, _ in parts[1:]:
        result = torch.minimum(result, distance)
    return result


def _grown(distance: Tensor, brush: Brush) -> Tensor:
    """A distance to what is a pixel and a half of 128 larger, so that a shadow shows a little on the lit side too."""
    return distance - 1.5 / 128 * brush.size / brush.pixels


def _moved(distance: Tensor, brush: Brush, by: float) -> Tensor:
    """A distance, moved right and down by a part of a picture width (whole pixels)."""
    step = max(1, round(by * brush.size))
    return F.pad(distance[:, :-step, :-step], (step, 0, step, 0), mode="replicate")


def _shadow(picture: Tensor, distance: Tensor, brush: Brush, *, soft: float, depth: float) -> Tensor:
    """The picture with a shadow over what is inside `distance`; it fades out over `soft` local units and a pixel."""
    fade = 1 / (soft + 1 / brush.pixels)
    inside = (0.5 - distance * fade).clamp(0, 1)
    dark = depth * torch.where(brush.black, 0.4, 1.0)  # else it would hide a black thing in the dark
    return picture * (1 - dark * (inside * inside * (3 - 2 * inside))[:, None])


def _light(height: Tensor, brush: Brush) -> Tensor:
    """How bright a relief [N, H, W] is where light falls on it from `SUN`; 1 where it is level."""
    reach = max(1, round(brush.size / 64))
    smooth = F.avg_pool2d(height[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]
    smooth = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    slope = 0.5 * 0.45 * brush.pixels
    du = (smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]) * slope
    dv = (smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]) * slope
    return (SUN[0] * du + SUN[1] * dv + SUN[2]) / (SUN[2] * (1 + du * du + dv * dv).sqrt())
