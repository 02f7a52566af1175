"""One thing of a drawn scene, masked and told alone: as people ask for a thing in a place of a picture."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sfumato.scenes.scene import Scene
from sfumato.scenes.vocabulary import SIZES

THING = 22  # purpose of the keyed generator
ROOM = (0.0, 0.12)  # of a picture width between a thing and each side of its mask
ROUND = 0.25  # how often the mask is an ellipse


def thing_alone(scene: Scene, seed: int, number: int) -> tuple[Scene, tuple[float, float, float, float]] | None:
    """The scene of sample `number` with one of its things alone, and a box around that: left, top, right and bottom
    in picture widths. None where a scene has no things.
    """
    if not scene.things:
        return None
    rng = np.random.default_rng([seed, number, THING])
    thing = scene.things[int(rng.integers(len(scene.things)))]
    half, room = SIZES[thing.size], rng.uniform(*ROOM, 4)
    box = (thing.x - half - room[0], thing.y - half - room[1], thing.x + half + room[2], thing.y + half + room[3])
    return replace(scene, things=(thing,)), (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def mask_of(box: tuple[float, float, float, float], size: int, seed: int, number: int) -> Tensor:
    """A mask [1, size, size] of zeros and ones that covers a box, or the ellipse through its corners."""
    left, top, right, bottom = box
    middles = (torch.arange(size) + 0.5) / size
    across, down = (2 * middles - left - right) / (right - left), (2 * middles - top - bottom) / (bottom - top)
    if np.random.default_rng([seed, number, THING, 1]).uniform() < ROUND:
        return (across[None, :] ** 2 + down[:, None] ** 2 <= 2).float()[None]
    return ((across.abs() <= 1)[None, :] & (down.abs() <= 1)[:, None]).float()[None]
