"""Which samples of the data are trained on, and which are held back for the validation loss."""

from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.errors import ConfigError
from sfumato.train.config import DataConfig
from sfumato.train.data import Samples, World
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

    def indices(self, seed: int, numbers: Sequence[int]) -> list[int]:
        """The samples of the source that have these numbers in a run."""
        rows = sample_indices(seed, numbers, self.count)
        return [self.order[row] for row in rows] if self.count else rows


def divide(samples: Samples, data: DataConfig) -> Division:
    """Hold back `data.validation` samples: of the drawn world scenes after the pool, of a folder some at random."""
    held = data.validation
    if samples.length == 0:
        return Division(0, (), range(FAR, FAR + held))
    if isinstance(samples, World):
        return Division(samples.length, range(samples.length), range(samples.length, samples.length + held))
    if held >= samples.length:
        raise ConfigError(f"data.validation is {held}; of {samples.length} samples that leaves none to train on.")
    order = sample_indices(data.seed, range(samples.length), samples.length)
    return Division(samples.length - held, order[: samples.length - held], order[samples.length - held :])
