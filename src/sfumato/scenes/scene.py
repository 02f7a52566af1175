"""A scene of the drawn world as a value, and the drawing of scenes from a seed."""

import hashlib
import math
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from sfumato.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    COLUMNS,
    KINDS,
    PLACES,
    ROWS,
    SIZES,
    STYLES,
    UNSEEN_PAIRS,
)

Split = Literal["train", "held_out", "unseen_pairs"]

JITTER = 0.045  # of a thing's centre, in picture widths; the places are 0.25 apart, so they never overlap
APART = 0.9  # times the sum of their half-sides that two things are at least apart
HELD_OUT_SHARE = 20  # one in twenty combinations of a first thing's attributes is never trained on
STYLE_WEIGHTS = {"shaded": 0.5, "flat": 0.25, "outline": 0.25}


@dataclass(frozen=True)
class Thing:
    """One thing in a scene: what it is, and the centre (x right, y down) in picture widths."""

    kind: str
    colour: str
    size: str
    x: float
    y: float

    @property
    def place(self) -> str:
        """The name of the place, one of nine, whose cell holds the centre."""
        return place_at(self.x, self.y)


@dataclass(frozen=True)
class Scene:
    """What there is to draw. Later things lie over earlier ones; `texture` seeds the small irregularities."""

    things: tuple[Thing, ...]
    background: str
    style: str
    horizon: float
    texture: int


def place_at(x: float, y: float) -> str:
    """The name of the place whose cell holds (x, y), in picture widths from the top left."""
    column = sum(x > (a + b) / 2 for a, b in pairwise(COLUMNS))
    row = sum(y > (a + b) / 2 for a, b in pairwise(ROWS))
    return list(PLACES)[3 * row + column]


def scene(seed: int, index: int, split: Split = "train", counts: tuple[float, ...] = (1.0,)) -> Scene:
    """Scene number `index` of the endless sequence named by `seed`; the same arguments give the same scene.

    `counts[k]` is the share of scenes with k + 1 things. Splits never share a combination of the first
    thing's kind, colour, size and place with the background; `unseen_pairs` holds only `UNSEEN_PAIRS`.
    """
    rng = np.random.default_rng([seed, index])
    while True:
        drawn = _draw(rng, counts, split)
        if _split(drawn) == split:
            return drawn


def _draw(rng: np.random.Generator, counts: tuple[float, ...], split: Split) -> Scene:
    shares = np.asarray(counts) / np.sum(counts)
    number = int(rng.choice(len(counts), p=shares)) + 1
    things = _things(rng, number, split)
    while _crowded(things):
        things = _things(rng, number, split)
    return Scene(
        things=things,
        background=str(rng.choice(list(BACKGROUNDS))),
        style=str(rng.choice(list(STYLES), p=[STYLE_WEIGHTS[s] for s in STYLES])),
        horizon=float(rng.uniform(0.56, 0.68)),
        texture=int(rng.integers(2**31)),
    )


def _things(rng: np.random.Generator, number: int, split: Split) -> tuple[Thing, ...]:
    things = []
    for place in rng.permutation(len(PLACES))[:number]:
        row, column = divmod(int(place), 3)
        kind, colour = _kind_and_colour(rng, split)
        size = str(rng.choice(list(SIZES) if number == 1 else list(SIZES)[:2]))
        dx, dy = rng.uniform(-JITTER, JITTER, 2)
        things.append(Thing(kind, colour, size, COLUMNS[column] + float(dx), ROWS[row] + float(dy)))
    return tuple(things)


def _kind_and_colour(rng: np.random.Generator, split: Split) -> tuple[str, str]:
    if split == "unseen_pairs":
        pairs = sorted(UNSEEN_PAIRS)
        return pairs[int(rng.integers(len(pairs)))]
    while True:
        pair = str(rng.choice(list(KINDS))), str(rng.choice(list(COLOURS)))
        if pair not in UNSEEN_PAIRS:
            return pair


def _crowded(things: tuple[Thing, ...]) -> bool:
    """Does a thing hide part of another?"""
    return any(
        math.dist((a.x, a.y), (b.x, b.y)) < APART * (SIZES[a.size] + SIZES[b.size]) for a, b in combinations(things, 2)
    )


def _split(drawn: Scene) -> Split:
    first = drawn.things[0]
    if any((thing.kind, thing.colour) in UNSEEN_PAIRS for thing in drawn.things):
        return "unseen_pairs"
    words = "/".join((first.kind, first.colour, first.size, first.place, drawn.background))
    digest = hashlib.blake2b(words.encode(), digest_size=4).digest()
    return "held_out" if int.from_bytes(digest, "little") % HELD_OUT_SHARE == 0 else "train"
