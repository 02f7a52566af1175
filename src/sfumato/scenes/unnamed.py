"""Scenes with things in colours that have no name, so that a network learns of shape and colour apart.

What no caption names may have any colour; but none that is nearest to a colour which its kind is never seen in.
"""

import colorsys
from dataclasses import replace

import numpy as np

from sfumato.scenes.palettes import RGB, hexadecimal, paints
from sfumato.scenes.scene import Scene
from sfumato.scenes.vocabulary import COLOURS, UNSEEN_PAIRS

STREAM = 77  # of the generator, beside that of the scene with the same seed and index
SATURATION, VALUE = (0.35, 0.95), (0.3, 0.97)
GREYS, GREYISH = 0.1, (0.0, 0.2)  # the share of greys, and their saturation


def repainted(drawn: Scene, seed: int, index: int, share: float) -> Scene:
    """The scene with so large a share of its things in colours without a name; the same arguments give the same."""
    rng = np.random.default_rng([seed, index, STREAM])
    things = (
        replace(thing, colour=_colour(rng, thing.kind)) if rng.uniform() < share else thing for thing in drawn.things
    )
    return replace(drawn, things=tuple(things))


def nearest(colour: RGB) -> str:
    """The name of the colour that is nearest in RGB."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], colour, strict=True)))


def _colour(rng: np.random.Generator, kind: str) -> str:
    """A colour as "#rrggbb" that a thing of this kind may have."""
    while True:
        hue, saturation, value = rng.uniform(), rng.uniform(*SATURATION), rng.uniform(*VALUE)
        if rng.uniform() < GREYS:
            saturation = rng.uniform(*GREYISH)
        colour = hexadecimal(colorsys.hsv_to_rgb(hue, saturation, value))
        if (kind, nearest(paints(colour)[0])) not in UNSEEN_PAIRS:
            return colour
