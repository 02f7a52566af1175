"""The prompts that a model is measured on: held-out scenes of the drawn world and captions of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.errors import RequestError
from sfumato.scenes.captions import Caption, caption
from sfumato.scenes.scene import Scene, Split, scene

COMPLETE_EVERY = 3  # of the captions, one in so many says everything, so that each attribute is said often
MOST_CASES = 10_000


@dataclass(frozen=True)
class Suite:
    """A kind of prompt. `counts[k]` is the share of scenes with k + 1 things; `seed` is used by nothing else."""

    title: str
    split: Split
    counts: tuple[float, ...]
    seed: int


SUITES = {
    "one": Suite("one object", "held_out", (1.0,), 9_000_001),
    "two": Suite("two objects", "held_out", (0.0, 1.0), 9_000_002),
    "unseen": Suite("unseen pairs", "unseen_pairs", (1.0,), 9_000_003),
}
"""One thing and two things in combinations that were never trained on; pairs of kind and colour that never were."""


@dataclass(frozen=True)
class Case:
    """A scene, and the caption that asks for it."""

    scene: Scene
    caption: Caption


def cases(suite: Suite, count: int) -> list[Case]:
    """The first `count` cases of a suite; the same ones every time, and a longer list begins with a shorter one."""
    drawn = [scene(suite.seed, index, suite.split, suite.counts) for index in range(count)]
    return [
        Case(one, caption(one, np.random.default_rng([suite.seed, index, 1]), complete=index % COMPLETE_EVERY == 0))
        for index, one in enumerate(drawn)
    ]


def shuffled(among: Sequence[Case]) -> list[Caption]:
    """To each case another one's caption, the next one's: what a model that does not listen would be asked."""
    return [case.caption for case in (*among[1:], *among[:1])]


def check(suites: Sequence[str], count: int) -> None:
    """Raises RequestError for a suite that does not exist, none at all, or a count that cannot be drawn."""
    unknown = [name for name in suites if name not in SUITES]
    if unknown or not suites:
        raise RequestError(f"suites is {', '.join(suites) or 'empty'}; there are {', '.join(SUITES)}", "suites")
    if not 1 <= count <= MOST_CASES:
        raise RequestError(f"count is {count}; it must be a whole number from 1 to {MOST_CASES}", "count")
