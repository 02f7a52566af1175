"""An evaluation of one model as a value, and as JSON."""

import json
import math
from dataclasses import dataclass
from typing import Any

from sfumato.evaluate.distances import Distance
from sfumato.evaluate.memorisation import Memorisation
from sfumato.evaluate.rows import LEARNED, Row, Sample
from sfumato.evaluate.seams import Seam


@dataclass(frozen=True)
class Quality:
    """What the autoencoder leaves of held-out renders: means over the pictures, PSNR in decibels, SSIM up to 1."""

    pictures: int
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Report:
    """What an evaluation found. `settings` is the resolved request that the pictures were drawn with.

    `quality` and `memorisation` are None where no prompts were drawn. `seconds` is what `drawn` pictures took together,
    reading not counted; those drawn for no words are among them.
    """

    model: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]
    distances: tuple[Distance, ...]
    seams: tuple[Seam, ...]
    quality: Quality | None
    memorisation: Memorisation | None
    drawn: int
    seconds: float

    @property
    def speed(self) -> float:
        """Pictures a second."""
        return self.drawn / self.seconds if self.seconds else math.nan

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites, in the order of the rows."""
        return tuple(dict.fromkeys(row.suite for row in self.rows))

    def row(self, suite: str, source: str = "model", reader: str = LEARNED) -> Row:
        """The row of a suite, a source and a reader ("agreement" of the two is one too)."""
        return next(row for row in self.rows if (row.suite, row.source, row.reader) == (suite, source, reader))

    def to_json(self) -> str:
        """Everything but the pictures, as one JSON object; what is not finite is null."""
        value = {
            "model": self.model,
            "settings": self.settings,
            "pictures_drawn": self.drawn,
            "pictures_per_second": _number(self.speed),
            "autoencoder": None if self.quality is None else _quality(self.quality),
            "rows": [_row(row) for row in self.rows],
            "distances": [_distance(distance) for distance in self.distances],
            "memorisation": None if self.memorisation is None else _memorisation(self.memorisation),
            "seams": [_seam(seam) for seam in self.seams],
            "samples": [_sample(sample) for sample in self.samples],
        }
        return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)


def _number(value: float, digits: int = 4) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _quality(quality: Quality) -> dict[str, Any]:
    return {"pictures": quality.pictures, "psnr_db": _number(quality.psnr), "ssim": _number(quality.ssim)}


def _row(row: Row) -> dict[str, Any]:
    figures = {
        figure.attribute: {
            "right": figure.right,
            "said": figure.said,
            "share": _number(figure.share),
            "interval": [round(bound, 4) for bound in figure.interval],
        }
        for figure in row.figures
    }
    about = {"suite": row.suite, "source": row.source, "reader": row.reader, "pictures": row.pictures}
    return {**about, "figures": figures}


def _distance(found: Distance) -> dict[str, Any]:
    about = {"suite": found.suite, "source": found.source, "pictures": found.pictures}
    return {**about, "kid": _number(found.kid, 6), "mmd": _number(found.mmd, 6)}


def _memorisation(found: Memorisation) -> dict[str, Any]:
    training = found.training
    return {
        "training": {"scenes": training.scenes, "seed": training.seed, "counts": list(training.counts)},
        "pictures": found.pictures,
        "median_distance": {
            "drawn": _number(found.drawn),
            "renders": _number(found.renders),
            "autoencoder": _number(found.through),
        },
        "ratio": _number(found.ratio),
        "suspicious": _number(found.suspicious),
        "nearest": [{"scene": each.scene, "distance": _number(each.distance)} for each in found.nearest],
    }


def _seam(found: Seam) -> dict[str, Any]:
    return {
        "source": found.source,
        "pictures": found.pictures,
        "across": _number(found.across),
        "beside": _number(found.beside),
        "ratio": _number(found.ratio),
    }


def _sample(sample: Sample) -> dict[str, Any]:
    wrong = [{"attribute": m.attribute, "said": m.said, "seen": m.seen} for m in sample.score.wrong]
    about = {"suite": sample.suite, "source": sample.source, "prompt": sample.prompt, "seed": sample.seed}
    return {**about, "wrong": wrong}
