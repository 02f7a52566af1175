"""Signed distances to simple figures, negative inside, in the units of the coordinates u and v."""

import math

import torch
from torch import Tensor

Points = list[tuple[float, float]]


def circle(u: Tensor, v: Tensor, x: float, y: float, radius: float) -> Tensor:
    return torch.hypot(u - x, v - y) - radius


def ellipse(u: Tensor, v: Tensor, x: float, y: float, a: float, b: float) -> Tensor:
    """Close to the distance near the edge, which is all that anti-aliasing needs."""
    return (torch.hypot((u - x) / a, (v - y) / b) - 1) * min(a, b)


def box(u: Tensor, v: Tensor, x: float, y: float, a: float, b: float, rounding: float = 0.0) -> Tensor:
    """A rectangle with half-sides a and b, its corners rounded."""
    qu, qv = (u - x).abs() - (a - rounding), (v - y).abs() - (b - rounding)
    return torch.hypot(qu.clamp(min=0), qv.clamp(min=0)) + torch.maximum(qu, qv).clamp(max=0) - rounding


def polygon(u: Tensor, v: Tensor, points: Points, rounding: float = 0.0) -> Tensor:
    """Exact distance to a simple polygon, by the nearest edge and the crossing number; `rounding` grows it."""
    nearest = torch.full_like(u, math.inf)
    inside = torch.zeros_like(u, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = u - ax, v - ay
        along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        if ey != 0:
            inside ^= ((ay > v) != (by > v)) & (wx < ex * wy / ey)
    distance = nearest.sqrt()
    return torch.where(inside, -distance, distance) - rounding


def union(*distances: Tensor) -> Tensor:
    result = distances[0]
    for distance in distances[1:]:
        result = torch.minimum(result, distance)
    return result


def intersection(*distances: Tensor) -> Tensor:
    result = distances[0]
    for distance in distances[1:]:
        result = torch.maximum(result, distance)
    return result
