"""Prior preservation: pictures of the class beside those of the subject, so that the class stays what it was.

Ruiz et al. 2023 (DreamBooth), equation 2. Samples with even numbers in a run are the subject's, those with odd numbers
the class's, each half in the order of its own epochs; a batch is even, so that a step has as many of both. The loss of
a step is the subject's mean plus `weight` times the class's, as sums over samples: it does not depend on passes.
"""

import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.model import Model
from sfumato.train.config import DataConfig, TrainConfig, build
from sfumato.train.data import LeftOut, Samples, open_samples
from sfumato.train.data.folder import files_in
from sfumato.train.data.records import PICTURE_SUFFIXES
from sfumato.train.device import autocast, pick_device
from sfumato.train.division import Division

log = logging.getLogger(__name__)

DRAWN = re.compile(r"prior-(\d{6})\.png")


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """`count` pictures of the class in the folder `source`, each captioned `prompt` where it has no words of its own.

    Those that are missing are drawn by the model before it is trained. `weight` is that of their loss; the subject's
    is 1.
    """

    source: str
    prompt: str
    count: int = 200
    weight: float = 1.0


def read_prior(config: TrainConfig) -> PriorConfig | None:
    """The section [prior], None without. Raises ConfigError for what cannot be, before any work."""
    if not config.prior:
        return None
    prior = build(PriorConfig, config.prior, "prior")
    if "model" not in config.start:
        raise ConfigError("[prior] needs start.model, the whole model that draws what is missing; or leave it out.")
    if config.data.source == "world":
        raise ConfigError("[prior] goes with pictures of a subject, but data.source is 'world'; name their folder.")
    if not prior.prompt.strip():
        raise ConfigError("prior.prompt is empty; say what the class is, such as 'a photo of a dog'.")
    if prior.count < 1:
        raise ConfigError(f"prior.count is {prior.count}; it is 1 or more.")
    if not (math.isfinite(prior.weight) and prior.weight >= 0):
        raise ConfigError(f"prior.weight is {prior.weight}; it is a finite number of 0 or more.")
    if config.run.batch % 2:
        raise ConfigError(f"run.batch is {config.run.batch}; with [prior] half of it is the class's: an even number.")
    return prior


def draw_missing(model: Model, prior: PriorConfig, config: TrainConfig) -> list[Path]:
    """Draws the pictures that the folder lacks, into it; their paths.

    Picture number n has the seed `run.seed` + n and is called prior-n.png; numbers begin after the pictures that were
    there before, whatever they are called. A picture has its name only once it is whole.
    """
    from sfumato.generation import generate
    from sfumato.request import Request

    folder = Path(prior.source)
    present = {path.name for path in files_in(folder, PICTURE_SUFFIXES)} if folder.is_dir() else set()
    others = sum(1 for name in present if not DRAWN.fullmatch(name))
    names = {number: f"prior-{number:06d}.png" for number in range(others, prior.count)}
    missing = {number: name for number, name in names.items() if name not in present}
    if missing:
        log.info("Drawing %d of %d pictures of %r into %s.", len(missing), prior.count, prior.prompt, folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, name in missing.items():
        request = Request(
            prompt=prior.prompt, seed=config.run.seed + number, width=config.data.size, height=config.data.size
        )
        with autocast(config.run, pick_device(config.run)):
            [picture] = generate(model, request, metadata=False)
        aside = folder / f".{name}.{os.getpid()}"
        picture.save(aside, format="PNG")
        made.append(aside.rename(folder / name))
    return made


def open_class(prior: PriorConfig, config: TrainConfig) -> Samples:
    """The pictures of the class: the first `count` of the folder. Raises DataError."""
    data = DataConfig(source=prior.source, size=config.data.size, pool=prior.count, caption=prior.prompt)
    return open_samples(data)


class WithClass:
    """Two sets as one: first the subject's samples, then the class's."""

    def __init__(self, subject: Samples, others: Samples) -> None:
        self.parts = (subject, others)
        self.first = subject.length
        self.length = subject.length + others.length
        self.identity = f"{subject.identity} {others.identity}"
        self.varies = subject.varies or others.varies
        self.left_out: Sequence[LeftOut] = [*subject.left_out, *others.left_out]

    def pictures(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        chosen = [[draw] for draw in draws] or [[] for _ in indices]
        shown = []
        for index, draw in zip(indices, chosen, strict=True):
            part, at = self._in_part(index)
            shown.append(part.pictures([at], draw))
        return torch.cat(shown)

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        said = []
        for index, draw in zip(indices, draws, strict=True):
            part, at = self._in_part(index)
            said += part.captions([at], [draw])
        return said

    def first_alike(self, index: int) -> int:
        part, at = self._in_part(index)
        return part.first_alike(at) + index - at

    def _in_part(self, index: int) -> tuple[Samples, int]:
        return (self.parts[0], index) if index < self.first else (self.parts[1], index - self.first)


@dataclass(frozen=True)
class Alternating(Division):
    """The subject's division, between whose samples are those of the class: `others` of them from `first` on."""

    first: int = 0
    others: int = 0

    def indices(self, seed: int, numbers: Sequence[int]) -> list[int]:
        subject = iter(super().indices(seed, [number // 2 for number in numbers if not is_class(number)]))
        drawn = Division(self.others, range(self.first, self.first + self.others), ())
        others = iter(drawn.indices(seed, [number // 2 for number in numbers if is_class(number)]))
        return [next(others if is_class(number) else subject) for number in numbers]


def alternate(division: Division, first: int, others: int) -> Alternating:
    """A division with samples of the class between its own."""
    return Alternating(division.count, division.order, division.held, first, others)


def is_class(number: int) -> bool:
    """Is the sample of this number in a run one of the class?"""
    return number % 2 == 1


def importance(numbers: Sequence[int], weight: float) -> Tensor:
    """The weight of each sample, [B]: its mean is over half of a step's samples, hence the 2."""
    return torch.tensor([2 * weight if is_class(number) else 2.0 for number in numbers])
