"""Which samples of the data are trained on, and which are held back for the validation loss."""

from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.errors import ConfigError
from sfumato.train.config import DataConfig
from sfumato.train.data import Samples, World
from sfumato.train.data.buckets import BucketPlan
from sfumato.train.plan import sample_indices

FAR = 1 << 40  # where the held-back samples of an endless set begin


@dataclass(frozen=True)
class Division:
    """`count` samples to train on, 0 for an endless set; sample number n of the data is `order[n]` of the source.

    `held` are the samples of the source that are held back.
    """

    count: int
    order: Sequence[int]
    held: Sequence[int]

    @property
    def of_one_size(self) -> bool:
        """Have all samples one size, so that microbatches may go through the networks together?"""
        return True

    def indices(self, seed: int, numbers: Sequence[int]) -> list[int]:
        """The samples of the source that have these numbers in a run."""
        rows = sample_indices(seed, numbers, self.count)
        return [self.order[row] for row in rows] if self.count else rows


@dataclass(frozen=True)
class Bucketed(Division):
    """Samples of several sizes: those of a run come in microbatches, each of one bucket, as `plan` lays them out."""

    plan: BucketPlan

    @property
    def of_one_size(self) -> bool:
        return False

    def indices(self, seed: int, numbers: Sequence[int]) -> list[int]:
        """The samples of the source that have these numbers in a run; the numbers are of whole microbatches."""
        size = self.plan.size
        assert not numbers or (numbers[0] % size == 0 and len(numbers) % size == 0), "a microbatch has one size"
        rows = [row for first in numbers[::size] for row in self.plan[first // size]]
        return [self.order[row] for row in rows]


def in_buckets(division: Division, samples: Samples, size: int, seed: int) -> Division:
    """The division for microbatches of `size` samples: the same one where all samples are of one bucket."""
    if isinstance(samples, World):
        return division
    buckets = [samples.bucket(index) for index in division.order]
    if len(set(buckets)) == 1:
        return division
    return Bucketed(division.count, division.order, division.held, BucketPlan(buckets, size, seed))


def divide(samples: Samples, data: DataConfig) -> Division:
    """Hold back `data.validation` samples: of the drawn world scenes after the pool, of a folder some at random.

    Samples of the same picture (repeats, and what is mirrored) are on the same side; those of a held-back one that are
    too many are left out of both. Raises ConfigError where nothing is left to train on.
    """
    wanted = data.validation
    if samples.length == 0:
        return Division(0, (), range(FAR, FAR + wanted))
    if isinstance(samples, World):
        return Division(samples.length, range(samples.length), range(samples.length, samples.length + wanted))
    order = sample_indices(data.seed, range(samples.length), samples.length)
    copies: dict[int, list[int]] = {}
    for index in reversed(order):
        copies.setdefault(samples.first_alike(index), []).append(index)
    held: list[int] = []
    apart = set()
    for picture, indices in copies.items():
        if len(held) >= wanted:
            break
        apart.add(picture)
        held += indices
    rest = [index for index in order if samples.first_alike(index) not in apart]
    if not rest:
        raise ConfigError(
            f"data.validation is {wanted}; of {samples.length} samples of {len(copies)} pictures that leaves none "
            "to train on."
        )
    return Division(len(rest), rest, held[:wanted])
