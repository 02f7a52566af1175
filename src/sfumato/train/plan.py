"""Which sample comes when, and its random numbers: pure functions of the seed, so that a run resumes and scales.

After edm2 (Karras et al. 2024), which seeds each step anew; here by microbatch, so that nothing depends on the number
of processes either.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.train.config import RunConfig


@dataclass(frozen=True)
class Pass:
    """The part of a step that goes through the networks at once: microbatches `first` to `first + count - 1` of it.

    `seen`: samples before the step; `batch`: samples of the whole step; `size`: of a microbatch.
    """

    seed: int
    step: int
    seen: int
    batch: int
    size: int
    first: int
    count: int

    @property
    def samples(self) -> int:
        """How many samples this pass has."""
        return self.size * self.count

    @property
    def share(self) -> float:
        """The part of the step's samples that this pass has."""
        return self.samples / self.batch

    @property
    def microbatches(self) -> "list[Pass]":
        """Each of its microbatches as a pass of its own."""
        return [replace(self, first=self.first + at, count=1) for at in range(self.count)]

    @property
    def numbers(self) -> range:
        """The numbers of its samples in the run."""
        start = self.seen + self.first * self.size
        return range(start, start + self.samples)

    def generators(self, purpose: int) -> list[torch.Generator]:
        """A CPU generator for each microbatch, keyed by the run's seed, the step, the microbatch and the purpose."""
        return [generator(self.seed, self.step, self.first + at, purpose) for at in range(self.count)]

    def normal(self, purpose: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Standard normal numbers for each sample, [samples, *shape]."""
        return torch.cat([torch.randn((self.size, *shape), generator=g) for g in self.generators(purpose)])

    def uniform(self, purpose: int) -> Tensor:
        """A number in [0, 1) for each sample, [samples]."""
        return torch.cat([torch.rand(self.size, generator=g) for g in self.generators(purpose)])

    def strata(self, purpose: int) -> Tensor:
        """As `uniform`, but one from each of `batch` equal parts of [0, 1) over the whole step, in random order."""
        draw = generator(self.seed, self.step, 0, purpose)
        whole = (torch.randperm(self.batch, generator=draw) + torch.rand(self.batch, generator=draw)) / self.batch
        return whole[self.first * self.size :][: self.samples]


def passes(run: RunConfig, step: int, seen: int, rank: int = 0, ranks: int = 1) -> list[Pass]:
    """What process number `rank` of `ranks` computes in a step; together they compute each microbatch once.

    Raises ConfigError where the step's microbatches cannot be divided evenly.
    """
    total, parts = run.microbatches, ranks * run.accumulate
    if run.accumulate < 1:
        raise ConfigError(f"run.accumulate is {run.accumulate}; with run.microbatch it divides a step: at least 1.")
    if total % parts:
        raise ConfigError(
            f"{total} microbatches of {run.batch // total} samples cannot be divided among {ranks} processes with "
            f"{run.accumulate} passes each; set run.microbatch to a divisor of {run.batch // parts or 1}."
        )
    count = total // parts
    return [
        Pass(run.seed, step, seen, run.batch, run.batch // total, (rank * run.accumulate + at) * count, count)
        for at in range(run.accumulate)
    ]


@dataclass(frozen=True)
class Coming:
    """The passes of a process from the step that comes after `step` steps and `seen` samples to the last."""

    run: RunConfig
    step: int
    seen: int
    rank: int = 0
    ranks: int = 1

    def __iter__(self) -> Iterator[Pass]:
        for step in range(self.step, self.run.steps):
            seen = self.seen + (step - self.step) * self.run.batch
            yield from passes(self.run, step, seen, self.rank, self.ranks)


def sample_indices(seed: int, numbers: Iterable[int], pool: int) -> list[int]:
    """The pool indices of the samples with these numbers in a run.

    Every epoch of `pool` samples is one permutation, keyed by (seed, epoch). pool 0 is an endless set: the numbers
    themselves.
    """
    if pool == 0:
        return list(numbers)
    return [int(_permutation(seed, number // pool, pool)[number % pool]) for number in numbers]


@lru_cache(maxsize=2)  # a batch touches at most two epochs
def _permutation(seed: int, epoch: int, pool: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.random.default_rng([seed, epoch]).permutation(pool)


def generator(seed: int, step: int, microbatch: int, purpose: int) -> torch.Generator:
    """A CPU generator keyed by its arguments; nothing that it draws depends on what was drawn before."""
    key = np.random.SeedSequence([seed, step, microbatch, purpose]).generate_state(2, np.uint32)
    return torch.Generator("cpu").manual_seed(int(key[0]) << 32 | int(key[1]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, networks initialise from `seed`; afterwards the global generator is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
