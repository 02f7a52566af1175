"""What is held back for validation is never trained on, in any copy."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.train.config import DataConfig
from sfumato.train.data import open_samples
from sfumato.train.division import divide


@dataclass
class Repeated:
    """Samples of which each picture stands `repeats` times, one after the other."""

    length: int
    repeats: int
    identity: str = ""
    left_out: Sequence[str] = ()

    def first_alike(self, index: int) -> int:
        return index - index % self.repeats

    def pictures(self, indices: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        raise NotImplementedError

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        raise NotImplementedError


@pytest.mark.parametrize(("repeats", "validation"), [(1, 5), (3, 5), (3, 6), (10, 1)])
def test_no_copy_of_a_held_back_picture_is_trained_on(repeats: int, validation: int) -> None:
    samples = Repeated(30, repeats)
    division = divide(samples, DataConfig(validation=validation, seed=4))  # type: ignore[arg-type]
    assert len(division.held) == validation
    assert division.count == len(division.order) == len(set(division.order))
    held = {samples.first_alike(index) for index in division.held}
    assert not held & {samples.first_alike(index) for index in division.order}
    assert len(held) == -(-validation // repeats)
    assert division.count == 30 - len(held) * repeats


def test_too_much_held_back_is_an_error() -> None:
    for repeats, validation in ((1, 4), (2, 3)):
        with pytest.raises(ConfigError, match=rf"data\.validation is {validation}; of 4 samples"):
            divide(Repeated(4, repeats), DataConfig(validation=validation))  # type: ignore[arg-type]


def test_scenes_are_held_back_from_beyond_the_pool() -> None:
    for pool, first in ((12, 12), (0, 1 << 40)):
        data = DataConfig(pool=pool, validation=3)
        division = divide(open_samples(data), data)
        assert list(division.held) == [first, first + 1, first + 2]
        assert division.count == pool
