"""Which sample comes when: a pure function of the seed, so that a run resumes and scales without bookkeeping."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch


def sample_indices(seed: int, first: int, count: int, pool: int) -> list[int]:
    """The pool indices of samples number `first` to `first + count - 1` of a run.

    Every epoch of `pool` samples is one permutation, keyed by (seed, epoch). pool 0 is an endless set: the numbers
    themselves.
    """
    numbers = range(first, first + count)
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
