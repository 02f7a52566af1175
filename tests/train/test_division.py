"""What is held back for validation is never trained on, in any copy."""

from pathlib import Path

import pytest
from PIL import Image

from sfumato.errors import ConfigError
from sfumato.train.config import DataConfig
from sfumato.train.data import Samples, open_samples
from sfumato.train.division import divide


def repeated(folder: Path, pictures: int, repeats: int) -> Samples:
    """A folder of pictures, each of which is so many samples."""
    inside = folder / f"{repeats}_thing"
    inside.mkdir()
    for number in range(pictures):
        Image.new("RGB", (32, 32), (8 * number, 90, 200)).save(inside / f"{number}.png")
    return open_samples(DataConfig(source=str(folder), size=32))


@pytest.mark.parametrize(("repeats", "validation"), [(1, 5), (3, 5), (3, 6), (10, 1)])
def test_no_copy_of_a_held_back_picture_is_trained_on(tmp_path: Path, repeats: int, validation: int) -> None:
    samples = repeated(tmp_path, 30 // repeats, repeats)
    assert samples.length == 30
    division = divide(samples, DataConfig(validation=validation, seed=4))
    assert len(division.held) == validation
    assert division.count == len(division.order) == len(set(division.order))
    held = {samples.first_alike(index) for index in division.held}
    assert not held & {samples.first_alike(index) for index in division.order}
    assert len(held) == -(-validation // repeats)
    assert division.count == 30 - len(held) * repeats


@pytest.mark.parametrize(("repeats", "validation"), [(1, 4), (2, 3)])
def test_too_much_held_back_is_an_error(tmp_path: Path, repeats: int, validation: int) -> None:
    samples = repeated(tmp_path, 4 // repeats, repeats)
    with pytest.raises(ConfigError, match=rf"data\.validation is {validation}; of 4 samples"):
        divide(samples, DataConfig(validation=validation))


def test_scenes_are_held_back_from_beyond_the_pool() -> None:
    for pool, first in ((12, 12), (0, 1 << 40)):
        data = DataConfig(pool=pool, validation=3)
        division = divide(open_samples(data), data)
        assert list(division.held) == [first, first + 1, first + 2]
        assert division.count == pool
