"""What an evaluation found, as values: shares with their intervals, rows of them, and the pictures behind them."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sfumato.scenes.score import ATTRIBUTES, Mark, Score

Z95 = 1.959964  # standard normal quantile at 97.5 %


def wilson(right: int, said: int) -> tuple[float, float]:
    """The 95 % interval of a share: `right` of `said`; (0, 1) of nothing.

    Wilson 1927. Claims of one picture are taken as independent, which makes it a little narrow with several things.
    """
    if said == 0:
        return 0.0, 1.0
    share, z2 = right / said, Z95**2
    middle = (share + z2 / (2 * said)) / (1 + z2 / said)
    half = Z95 * math.sqrt(share * (1 - share) / said + z2 / (4 * said**2)) / (1 + z2 / said)
    return max(0.0, min(share, middle - half)), min(
        1.0, max(share, middle + half)
    )  # rounding may not leave the share out


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
    """The figures of one source of pictures on one suite.

    Sources: "model" draws the prompts; "renders" are the scenes drawn by the renderer, what the reader can do at
    best; "autoencoder" are those after encoding and decoding, what the model can do at best; "shuffled" are the
    model's pictures against other prompts, what is right by chance.
    """

    suite: str
    source: str
    pictures: int
    figures: tuple[Figure, ...]

    def figure(self, attribute: str) -> Figure:
        """The figure of one attribute, or of "strict"."""
        return next(figure for figure in self.figures if figure.attribute == attribute)


@dataclass(frozen=True)
class Sample:
    """One picture that the model drew, and how it was read."""

    suite: str
    prompt: str
    seed: int
    picture: Image.Image
    score: Score


@dataclass(frozen=True)
class Report:
    """An evaluation of one model. `settings` is the resolved request that the pictures were drawn with.

    `autoencoder_psnr` is the mean over the renders, in decibels; `seconds` is what drawing one picture took.
    """

    model: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]
    autoencoder_psnr: float
    seconds: float

    def row(self, suite: str, source: str = "model") -> Row:
        """The row of a suite and a source."""
        return next(row for row in self.rows if (row.suite, row.source) == (suite, source))

    def to_json(self) -> str:
        """Everything but the pictures, as one JSON object."""
        value = {
            "model": self.model,
            "settings": self.settings,
            "autoencoder_psnr_db": round(self.autoencoder_psnr, 3),
            "seconds_per_picture": round(self.seconds, 4),
            "rows": [_row(row) for row in self.rows],
            "samples": [_sample(sample) for sample in self.samples],
        }
        return json.dumps(value, ensure_ascii=False, indent=1)


def summarise(suite: str, source: str, scores: Sequence[Score]) -> Row:
    """The figures of some pictures: each attribute that was said at least once, and "strict" at the end."""
    marks = [mark for score in scores for mark in score.marks]
    figures = [_figure(name, (m for m in marks if m.attribute == name)) for name in ATTRIBUTES]
    strict = Figure("strict", sum(score.strict for score in scores), len(scores))
    return Row(suite, source, len(scores), (*(figure for figure in figures if figure.said), strict))


def _figure(name: str, marks: Iterable[Mark]) -> Figure:
    rights = [mark.right for mark in marks]
    return Figure(name, sum(rights), len(rights))


def _row(row: Row) -> dict[str, Any]:
    figures = {
        figure.attribute: {
            "right": figure.right,
            "said": figure.said,
            "share": round(figure.share, 4),
            "interval": [round(bound, 4) for bound in figure.interval],
        }
        for figure in row.figures
    }
    return {"suite": row.suite, "source": row.source, "pictures": row.pictures, "figures": figures}


def _sample(sample: Sample) -> dict[str, Any]:
    wrong = [{"attribute": m.attribute, "said": m.said, "seen": m.seen} for m in sample.score.wrong]
    return {"suite": sample.suite, "prompt": sample.prompt, "seed": sample.seed, "wrong": wrong}
