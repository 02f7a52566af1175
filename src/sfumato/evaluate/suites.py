"""The prompts that a model is measured on: held-out scenes of the drawn world and captions of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as counting_up

import numpy as np

from sfumato.scenes.captions import SAID, Caption, caption
from sfumato.scenes.scene import Scene, Split, scene
from sfumato.scenes.score import ATTRIBUTES

COMPLETE_EVERY = 3  # of the captions, one in so many says everything, so that each attribute is said often
AGAIN = 10_000_000  # from the seed of a scene to that of the one in its place, where it does not fit

Fits = Callable[[Scene, int], bool]
"""Does a scene suit the case of this number?"""


@dataclass(frozen=True)
class Suite:
    """A kind of prompt: how its scenes and captions are drawn, and which attributes are scored.

    `counts[k]` is the share of scenes with k + 1 things; `seed` is used by nothing else. `says` are the attributes that
    every caption says beside the kinds, and no other; None is as captions are, with every third one complete. So large
    a share as `natural` is as people write.
    """

    title: str
    seed: int
    counts: tuple[float, ...] = (1.0,)
    split: Split = "held_out"
    says: tuple[str, ...] | None = None
    natural: float = 0.0
    scored: tuple[str, ...] = ATTRIBUTES
    fits: Fits = lambda drawn, index: True


def _all_differ(drawn: Scene, index: int) -> bool:
    first, second = drawn.things
    return first.kind != second.kind and first.colour != second.colour


def _one_alike_other(drawn: Scene, index: int) -> bool:
    """In turn one thing, two of a kind, two of two kinds."""
    kinds = [thing.kind for thing in drawn.things]
    return (len(kinds), len(set(kinds))) == ((1, 1), (2, 1), (2, 2))[index % 3]


SUITES = {
    "one": Suite("one object", 9_000_001),
    "two": Suite("two objects", 9_000_002, (0.0, 1.0)),
    "unseen": Suite("unseen pairs", 9_000_003, split="unseen_pairs"),
    "natural": Suite("in people's words", 9_000_021, (0.7, 0.3), natural=1.0),
    "binding": Suite(
        "whose colour", 9_000_004, (0.0, 1.0), says=("colour",), scored=("kind", "colour"), fits=_all_differ
    ),
    "counting": Suite("how many", 9_000_005, (1.0, 3.0), says=("colour",), scored=("count",), fits=_one_alike_other),
    "position": Suite("where", 9_000_006, says=("colour", "place"), scored=("kind", "place")),
    "relation": Suite(
        "how they lie",
        9_000_007,
        (0.0, 1.0),
        says=("colour", "relation"),
        scored=("kind", "relation"),
        fits=_all_differ,
    ),
    "size": Suite("how large", 9_000_008, says=("colour", "size"), scored=("kind", "size")),
    "background": Suite("on what", 9_000_009, says=("colour", "background"), scored=("kind", "background")),
    "style": Suite("in which style", 9_000_010, says=("colour", "style"), scored=("kind", "style")),
}
"""Combinations of things, places and backgrounds that were never trained on; in `unseen` also pairs of kind and colour
that never were."""


@dataclass(frozen=True)
class Case:
    """A scene, and the caption that asks for it."""

    scene: Scene
    caption: Caption


def cases(suite: Suite, count: int) -> list[Case]:
    """The first `count` cases of a suite; the same ones every time, and a longer list begins with a shorter one."""
    return [_case(suite, index) for index in range(count)]


def fitting(suite: Suite, index: int) -> Scene:
    """The scene of case `index`: the first of those drawn for it that fits."""
    drawn = (scene(suite.seed + AGAIN * attempt, index, suite.split, suite.counts) for attempt in counting_up())
    return next(each for each in drawn if suite.fits(each, index))


def saying(drawn: Scene, says: Sequence[str], rng: np.random.Generator) -> Caption:
    """A caption that says the kinds and these attributes, and no others."""
    said: Mapping[str, float] = {name: float(name in says) for name in SAID}
    return caption(drawn, rng, said=said, related=float("relation" in says))


def _case(suite: Suite, index: int) -> Case:
    drawn, rng = fitting(suite, index), np.random.default_rng([suite.seed, index, 1])
    if suite.says is None:
        return Case(drawn, caption(drawn, rng, index % COMPLETE_EVERY == 0, natural=suite.natural))
    return Case(drawn, saying(drawn, suite.says, rng))


def shuffled(among: Sequence[Case]) -> list[Caption]:
    """To each case another one's caption, the next one's: what a model that does not listen would be asked."""
    return [case.caption for case in (*among[1:], *among[:1])]
