"""What was found in some pictures, as values: shares with their intervals, rows of them, and how far readers agree."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from sfumato.scenes.score import ATTRIBUTES, Mark, Score

Z95 = 1.959964  # standard normal quantile at 97.5 %
EDITS = ("changed", "kept", "outside")
"""What only edits are judged by: the new is there, the old still is, and the bytes outside of the mask are the same."""

LEARNED, RULES = "learned", "rules"
"""The readers: the network, and the one that was never trained."""


def wilson(right: int, said: int) -> tuple[float, float]:
    """The 95 % interval of a share: `right` of `said`; (0, 1) of nothing.

    Wilson 1927. Claims of one picture are taken as independent, which makes it a little narrow with several things.
    """
    if said == 0:
        return 0.0, 1.0
    share, z2 = right / said, Z95**2
    middle = (share + z2 / (2 * said)) / (1 + z2 / said)
    half = Z95 * math.sqrt(share * (1 - share) / said + z2 / (4 * said**2)) / (1 + z2 / said)
    low, high = min(share, middle - half), max(share, middle + half)  # rounding may not leave the share out
    return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Figure:
    """How often an attribute that was said was right; "strict" counts pictures in which everything was."""

    attribute: str
    right: int
    said: int

    @property
    def share(self) -> float:
        """Right of said, 0..1; nan where nothing was said."""
        return self.right / self.said if self.said else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share."""
        return wilson(self.right, self.said)


@dataclass(frozen=True)
class Row:
    """The figures of one source of pictures on one suite, as one reader read them.

    Sources of suites of words: "model" draws the prompts; "renders" are the scenes drawn by the renderer, what the
    reader can do at best; "autoencoder" are those after encoding and decoding, what the model can do at best;
    "shuffled" are the model's pictures against other prompts, what is right by chance; "empty" is what it draws for
    no words, against the prompts. Sources of edits: each strength, or "model"; "renders", the truth; and "start", the
    picture before the edit.
    """

    suite: str
    source: str
    pictures: int
    figures: tuple[Figure, ...]
    reader: str = LEARNED

    def figure(self, attribute: str) -> Figure:
        """The figure of one attribute, or of "strict"."""
        return next(figure for figure in self.figures if figure.attribute == attribute)


@dataclass(frozen=True)
class Sample:
    """One picture that the model made, how it was read, and for edits the picture before."""

    suite: str
    prompt: str
    seed: int
    picture: Image.Image
    score: Score
    source: str = "model"
    before: Image.Image | None = None


def summarise(suite: str, source: str, scores: Sequence[Score], reader: str = LEARNED) -> Row:
    """The figures of some pictures: each attribute that was said at least once, and "strict" at the end."""
    marks = [mark for score in scores for mark in score.marks]
    figures = [_figure(name, (m for m in marks if m.attribute == name)) for name in (*ATTRIBUTES, *EDITS)]
    strict = Figure("strict", sum(score.strict for score in scores), len(scores))
    return Row(suite, source, len(scores), (*(figure for figure in figures if figure.said), strict), reader)


def agreement(suite: str, source: str, first: Sequence[Score], second: Sequence[Score]) -> Row:
    """On how many claims two readers saw the same, by attribute; "strict" counts pictures where they did on all.

    The scores are of the same pictures and captions. Of a relation, the same is that both or neither saw it.
    """
    same = [
        Score(tuple(Mark(a.attribute, a.said, b.seen, _same(a, b)) for a, b in zip(one.marks, two.marks, strict=True)))
        for one, two in zip(first, second, strict=True)
    ]
    return summarise(suite, source, same, "agreement")


def _same(first: Mark, second: Mark) -> bool:
    return first.right == second.right if first.attribute == "relation" else first.seen == second.seen


def _figure(name: str, marks: Iterable[Mark]) -> Figure:
    rights = [mark.right for mark in marks]
    return Figure(name, sum(rights), len(rights))
