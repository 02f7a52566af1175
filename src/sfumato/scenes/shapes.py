"""The kinds of things as signed distances: each kind is a list of parts, drawn in order.

Coordinates are local: u right, v down, the thing spans [-1, 1] in both; [N, H, W] tensors. A distance is negative
inside. A part's paint is "main" (the thing's colour), "dark" or "light" (shades of it), or a fixed RGB in [0, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

RGB = tuple[float, float, float]
Part = tuple[Tensor, str | RGB]

WOOD: RGB = (0.45, 0.29, 0.17)
GLASS: RGB = (0.80, 0.91, 0.97)
RUBBER: RGB = (0.12, 0.12, 0.13)
METAL: RGB = (0.72, 0.74, 0.76)
LEAF: RGB = (0.22, 0.52, 0.20)
CANVAS: RGB = (0.96, 0.94, 0.88)
POLLEN: RGB = (0.93, 0.72, 0.18)


def circle(u: Tensor, v: Tensor, x: float, y: float, radius: float) -> Tensor:
    return torch.hypot(u - x, v - y) - radius


def ellipse(u: Tensor, v: Tensor, x: float, y: float, a: float, b: float) -> Tensor:
    """Close to the distance near the edge, which is all that anti-aliasing needs."""
    return (torch.hypot((u - x) / a, (v - y) / b) - 1) * min(a, b)


def box(u: Tensor, v: Tensor, x: float, y: float, a: float, b: float, rounding: float = 0.0) -> Tensor:
    """A rectangle with half-sides a and b, its corners rounded."""
    qu, qv = (u - x).abs() - (a - rounding), (v - y).abs() - (b - rounding)
    return torch.hypot(qu.clamp(min=0), qv.clamp(min=0)) + torch.maximum(qu, qv).clamp(max=0) - rounding


def polygon(u: Tensor, v: Tensor, points: list[tuple[float, float]]) -> Tensor:
    """Exact distance to a simple polygon, by the nearest edge and the crossing number."""
    nearest = torch.full_like(u, math.inf)
    sign = torch.ones_like(u)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = u - ax, v - ay
        along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        crosses = (ay > v) != (by > v)
        if ey != 0:
            sign = torch.where(crosses & (wx < ex * wy / ey), -sign, sign)
    return sign * nearest.sqrt()


def union(*distances: Tensor) -> Tensor:
    result = distances[0]
    for distance in distances[1:]:
        result = torch.minimum(result, distance)
    return result


def house(u: Tensor, v: Tensor) -> list[Part]:
    return [
        (box(u, v, 0, 0.34, 0.72, 0.6), "main"),
        (polygon(u, v, [(-0.98, -0.2), (0, -0.97), (0.98, -0.2)]), "dark"),
        (box(u, v, 0.3, 0.6, 0.18, 0.34), WOOD),
        (box(u, v, -0.3, 0.3, 0.2, 0.2), GLASS),
    ]


def tree(u: Tensor, v: Tensor) -> list[Part]:
    crown = union(circle(u, v, 0, -0.42, 0.55), circle(u, v, -0.42, 0.0, 0.45), circle(u, v, 0.42, 0.0, 0.45))
    return [(box(u, v, 0, 0.65, 0.14, 0.33), WOOD), (crown, "main")]


def flower(u: Tensor, v: Tensor) -> list[Part]:
    turns = [2 * math.pi * k / 5 - math.pi / 2 for k in range(5)]
    petals = union(*(circle(u, v, 0.42 * math.cos(a), -0.3 + 0.42 * math.sin(a), 0.28) for a in turns))
    leaves = union(ellipse(u, v, -0.25, 0.62, 0.25, 0.1), ellipse(u, v, 0.25, 0.72, 0.25, 0.1))
    return [
        (union(box(u, v, 0, 0.55, 0.07, 0.43), leaves), LEAF),
        (petals, "main"),
        (circle(u, v, 0, -0.3, 0.22), POLLEN),
    ]


def car(u: Tensor, v: Tensor) -> list[Part]:
    cabin = polygon(u, v, [(-0.62, -0.02), (-0.4, -0.5), (0.28, -0.5), (0.6, -0.02)])
    glass = polygon(u, v, [(-0.45, -0.05), (-0.31, -0.39), (0.2, -0.39), (0.42, -0.05)])
    wheels = union(circle(u, v, -0.5, 0.42, 0.24), circle(u, v, 0.5, 0.42, 0.24))
    hubs = union(circle(u, v, -0.5, 0.42, 0.1), circle(u, v, 0.5, 0.42, 0.1))
    body = union(box(u, v, 0, 0.18, 0.97, 0.25, rounding=0.12), cabin)
    return [(body, "main"), (glass, GLASS), (wheels, RUBBER), (hubs, METAL)]


def boat(u: Tensor, v: Tensor) -> list[Part]:
    sails = union(
        polygon(u, v, [(0.1, -0.92), (0.1, 0.18), (0.78, 0.18)]),
        polygon(u, v, [(-0.1, -0.7), (-0.1, 0.18), (-0.6, 0.18)]),
    )
    hull = polygon(u, v, [(-0.98, 0.3), (0.98, 0.3), (0.62, 0.86), (-0.62, 0.86)])
    return [(box(u, v, 0, -0.32, 0.05, 0.64), WOOD), (sails, CANVAS), (hull, "main")]


def fish(u: Tensor, v: Tensor) -> list[Part]:
    tail = polygon(u, v, [(0.35, 0.0), (0.97, -0.48), (0.8, 0.0), (0.97, 0.48)])
    fins = union(
        polygon(u, v, [(-0.35, -0.3), (0.15, -0.68), (0.25, -0.25)]),
        polygon(u, v, [(-0.2, 0.3), (0.1, 0.62), (0.2, 0.25)]),
    )
    return [
        (union(tail, fins), "dark"),
        (ellipse(u, v, -0.2, 0, 0.76, 0.44), "main"),
        (circle(u, v, -0.58, -0.1, 0.12), CANVAS),
        (circle(u, v, -0.6, -0.1, 0.06), RUBBER),
    ]


def ball(u: Tensor, v: Tensor) -> list[Part]:
    disc = circle(u, v, 0, 0, 0.88)
    band = torch.maximum(disc, (v + 0.25 * u).abs() - 0.16)
    return [(disc, "main"), (band, "light")]


def star(u: Tensor, v: Tensor) -> list[Part]:
    turns = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
    radii = [1.0, 0.44] * 5
    points = [(r * math.cos(a), r * math.sin(a) + 0.06) for r, a in zip(radii, turns, strict=True)]
    return [(polygon(u, v, points), "main")]


def moon(u: Tensor, v: Tensor) -> list[Part]:
    crescent = torch.maximum(circle(u, v, -0.05, 0, 0.93), -circle(u, v, 0.42, -0.1, 0.72))
    return [(crescent, "main")]


def heart(u: Tensor, v: Tensor) -> list[Part]:
    lobes = union(circle(u, v, -0.43, -0.32, 0.5), circle(u, v, 0.43, -0.32, 0.5))
    point = polygon(u, v, [(-0.86, -0.07), (0, -0.5), (0.86, -0.07), (0, 0.92)])
    return [(union(lobes, point), "main")]


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
