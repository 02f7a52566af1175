"""The kinds of things as signed distances: each kind is a list of parts, drawn in order.

Coordinates are local: u right, v down, the thing spans [-1, 1] in both; [N, H, W] tensors. A distance is negative
inside. A part's paint is "main" (the thing's colour), "dark" or "light" (shades of it), or a fixed RGB in [0, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.scenes.distances import box, circle, ellipse, intersection, polygon, union

RGB = tuple[float, float, float]
Part = tuple[Tensor, str | RGB]

WOOD: RGB = (0.47, 0.30, 0.18)
GLASS: RGB = (0.80, 0.91, 0.97)
RUBBER: RGB = (0.14, 0.14, 0.16)
METAL: RGB = (0.76, 0.78, 0.80)
LEAF: RGB = (0.20, 0.47, 0.20)
CANVAS: RGB = (0.97, 0.94, 0.87)
POLLEN: RGB = (0.64, 0.37, 0.10)


def house(u: Tensor, v: Tensor) -> list[Part]:
    return [
        (box(u, v, 0.5, -0.6, 0.14, 0.32), WOOD),
        (box(u, v, 0, 0.36, 0.76, 0.6), "main"),
        (polygon(u, v, [(-0.93, -0.16), (0, -0.92), (0.93, -0.16)], rounding=0.05), "dark"),
        (box(u, v, 0.33, 0.58, 0.21, 0.38), WOOD),
        (box(u, v, -0.31, 0.36, 0.23, 0.23), GLASS),
    ]


def tree(u: Tensor, v: Tensor) -> list[Part]:
    trunk = polygon(u, v, [(-0.14, 0.1), (0.14, 0.1), (0.22, 0.98), (-0.22, 0.98)])
    crown = union(circle(u, v, 0, -0.45, 0.53), circle(u, v, -0.44, 0.0, 0.48), circle(u, v, 0.44, 0.0, 0.48))
    return [(trunk, WOOD), (crown, "main")]


def flower(u: Tensor, v: Tensor) -> list[Part]:
    turns = [2 * math.pi * k / 5 - math.pi / 2 for k in range(5)]
    petals = union(*(circle(u, v, 0.41 * math.cos(a), -0.26 + 0.41 * math.sin(a), 0.33) for a in turns))
    leaves = union(ellipse(u, v, -0.34, 0.68, 0.34, 0.16), ellipse(u, v, 0.34, 0.8, 0.34, 0.16))
    return [
        (union(box(u, v, 0, 0.55, 0.09, 0.43), leaves), LEAF),
        (petals, "main"),
        (circle(u, v, 0, -0.26, 0.25), POLLEN),
    ]


def car(u: Tensor, v: Tensor) -> list[Part]:
    cabin = polygon(u, v, [(-0.64, 0.0), (-0.42, -0.54), (0.28, -0.54), (0.6, 0.0)], rounding=0.06)
    glass = polygon(u, v, [(-0.46, -0.06), (-0.3, -0.4), (0.2, -0.4), (0.42, -0.06)])
    wheels = union(circle(u, v, -0.52, 0.44, 0.28), circle(u, v, 0.52, 0.44, 0.28))
    hubs = union(circle(u, v, -0.52, 0.44, 0.12), circle(u, v, 0.52, 0.44, 0.12))
    body = union(box(u, v, 0, 0.16, 0.98, 0.3, rounding=0.16), cabin)
    return [(body, "main"), (glass, GLASS), (wheels, RUBBER), (hubs, METAL)]


def boat(u: Tensor, v: Tensor) -> list[Part]:
    hull = polygon(u, v, [(-0.94, 0.3), (0.94, 0.3), (0.58, 0.88), (-0.58, 0.88)], rounding=0.04)
    return [
        (box(u, v, 0, -0.32, 0.06, 0.66), WOOD),
        (polygon(u, v, [(0.12, -0.92), (0.12, 0.14), (0.84, 0.14)]), CANVAS),
        (polygon(u, v, [(-0.12, -0.7), (-0.12, 0.14), (-0.68, 0.14)]), "light"),
        (hull, "main"),
    ]


def fish(u: Tensor, v: Tensor) -> list[Part]:
    tail = polygon(u, v, [(0.35, 0.0), (0.93, -0.52), (0.78, 0.0), (0.93, 0.52)], rounding=0.05)
    upper = polygon(u, v, [(-0.4, -0.3), (0.2, -0.72), (0.28, -0.2)])
    lower = polygon(u, v, [(-0.2, 0.3), (0.16, 0.7), (0.24, 0.2)])
    return [
        (union(tail, upper, lower), "dark"),
        (ellipse(u, v, -0.2, 0, 0.78, 0.5), "main"),
        (circle(u, v, -0.58, -0.12, 0.16), CANVAS),
        (circle(u, v, -0.61, -0.12, 0.09), RUBBER),
    ]


def ball(u: Tensor, v: Tensor) -> list[Part]:
    """A beach ball that leans: one pale sector down the middle, as wide as a third of it."""
    disc = circle(u, v, 0, 0, 0.92)
    across, along = 0.87 * u + 0.5 * v, 0.87 * v - 0.5 * u
    return [(disc, "main"), (intersection(disc, ellipse(across, along, 0, 0, 0.3, 0.93)), "light")]


def star(u: Tensor, v: Tensor) -> list[Part]:
    turns = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
    radii = [0.92, 0.43] * 5
    points = [(r * math.cos(a), r * math.sin(a) + 0.07) for r, a in zip(radii, turns, strict=True)]
    return [(polygon(u, v, points, rounding=0.07), "main")]


def moon(u: Tensor, v: Tensor) -> list[Part]:
    """A disc less another disc to the right of it and a little up; near the horns, their tips are the nearest."""
    lean, apart, outer, inner = 0.2, 0.52, 0.95, 0.8
    x = math.cos(lean) * (u - 0.08) - math.sin(lean) * v
    y = (math.sin(lean) * (u - 0.08) + math.cos(lean) * v).abs()
    tip_x = (outer**2 - inner**2 + apart**2) / (2 * apart)
    tip_y = math.sqrt(outer**2 - tip_x**2)
    crescent = intersection(circle(x, y, 0, 0, outer), -circle(x, y, apart, 0, inner))
    beyond = x * tip_y - y * tip_x > apart * (tip_y - y).clamp(min=0)
    return [(torch.where(beyond, torch.hypot(x - tip_x, y - tip_y), crescent), "main")]


def heart(u: Tensor, v: Tensor) -> list[Part]:
    """Two half discs on the upper sides of a square that stands on its corner; the distance is exact inside and out."""
    scale = 0.66  # of its own coordinates, in which the square's half diagonal is half a unit
    x, y = scale * u.abs(), scale * (0.84 - v)
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    along = 0.5 * (x + y).clamp(min=0)
    side = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - along, y - along)) * (x - y).sign()
    return [(torch.where(x + y > 1, lobe, side) / scale - 0.05, "main")]


SHAPES: dict[str, Callable[[Tensor, Tensor], list[Part]]] = {
    "house": house,
    "tree": tree,
    "flower": flower,
    "car": car,
    "boat": boat,
    "fish": fish,
    "ball": ball,
    "star": star,
    "moon": moon,
    "heart": heart,
}
