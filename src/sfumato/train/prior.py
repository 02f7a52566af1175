"""Prior preservation: pictures of the class beside those of the subject, so that the class stays what it was.

Ruiz et al. 2023 (DreamBooth), equation 2. Samples with even numbers in a run are the subject's, those with odd numbers
the class's, each half in the order of its own epochs; a batch is even, so that a step has as many of both. Where
pictures have several sizes it is whole microbatches that take turns. The loss of a step is the subject's mean plus
`weight` times the class's, as sums over samples: it does not depend on passes.
"""

import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.model import Model
from sfumato.train.config import DataConfig, RunConfig, TrainConfig, build
from sfumato.train.data import LeftOut, Samples, open_samples
from sfumato.train.data.buckets import Size
from sfumato.train.data.folder import files_in
from sfumato.train.data.records import PICTURE_SUFFIXES
from sfumato.train.device import autocast, pick_device
from sfumato.train.division import Division, in_buckets

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
    size, buckets = config.data.size, config.data.buckets
    data = DataConfig(source=prior.source, size=size, buckets=buckets, pool=prior.count, caption=prior.prompt)
    return open_samples(data)


class WithClass:
    """Two sets as one: first the subject's samples, then the class's."""

    on_device = False

    def __init__(self, subject: Samples, others: Samples) -> None:
        self.parts = (subject, others)
        self.first = subject.length
        self.length = subject.length + others.length
        self.identity = f"{subject.identity} {others.identity}"
        self.varies = subject.varies or others.varies
        self.left_out: Sequence[LeftOut] = [*subject.left_out, *others.left_out]

    def pictures(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        return torch.cat([part.pictures([at], draw) for part, at, draw in self._each(indices, draws)])

    def bucket(self, index: int) -> Size:
        part, at = self._in_part(index)
        return part.bucket(at)

    def in_bucket(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        return torch.cat([part.in_bucket([at], draw) for part, at, draw in self._each(indices, draws)])

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        said = []
        for index, draw in zip(indices, draws, strict=True):
            part, at = self._in_part(index)
            said += part.captions([at], [draw])
        return said

    def first_alike(self, index: int) -> int:
        part, at = self._in_part(index)
        return part.first_alike(at) + index - at

    def _each(self, indices: Sequence[int], draws: Sequence[int]) -> Iterator[tuple[Samples, int, Sequence[int]]]:
        chosen: Sequence[Sequence[int]] = [[draw] for draw in draws] or [[] for _ in indices]
        for index, draw in zip(indices, chosen, strict=True):
            yield *self._in_part(index), draw

    def _in_part(self, index: int) -> tuple[Samples, int]:
        return (self.parts[0], index) if index < self.first else (self.parts[1], index - self.first)


@dataclass(frozen=True)
class Alternating(Division):
    """The subject's division, between whose samples are those of the class: each `block` samples of a run in turn."""

    subject: Division
    others: Division
    block: int = 1
    of_one_size: bool = True

    def indices(self, seed: int, numbers: Sequence[int]) -> list[int]:
        subject = iter(self.subject.indices(seed, [self._within(n) for n in numbers if not is_class(n, self.block)]))
        others = iter(self.others.indices(seed, [self._within(n) for n in numbers if is_class(n, self.block)]))
        return [next(others if is_class(number, self.block) else subject) for number in numbers]

    def _within(self, number: int) -> int:
        turn, place = divmod(number, self.block)
        return turn // 2 * self.block + place


def alternate(subject: Division, both: WithClass, run: RunConfig, seed: int) -> Alternating:
    """The subject's division with samples of the class between its own; `seed` lays out the buckets of the class.

    Raises ConfigError where microbatches should take turns, because there are several sizes, and are odd.
    """
    class_samples = both.parts[1]
    places = range(class_samples.length)
    size = run.batch // run.microbatches
    drawn = in_buckets(Division(len(places), places, ()), class_samples, size, seed)
    others = replace(drawn, order=range(both.first, both.length))
    sizes = {both.bucket(index) for index in (*subject.order, *others.order)}
    if len(sizes) == 1:
        return Alternating(subject.count, subject.order, subject.held, subject, others)
    if run.microbatches % 2:
        raise ConfigError(
            f"With [prior] and pictures of {len(sizes)} sizes microbatches are the subject's and the class's in turn, "
            f"but a step has {run.microbatches}; set run.microbatch to a divisor of {run.batch // 2}."
        )
    return Alternating(subject.count, subject.order, subject.held, subject, others, size, False)


def is_class(number: int, block: int = 1) -> bool:
    """Is the sample of this number in a run one of the class? `block` samples come together."""
    return number // block % 2 == 1


def importance(numbers: Sequence[int], weight: float, block: int = 1) -> Tensor:
    """The weight of each sample, [B]: its mean is over half of a step's samples, hence the 2."""
    return torch.tensor([2 * weight if is_class(number, block) else 2.0 for number in numbers])
