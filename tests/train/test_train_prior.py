"""Prior preservation: what is drawn, how it is mixed in, and that it keeps the class as it was."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_start as tiny
import torch
from PIL import Image
from set_maker import picture

import sfumato
from sfumato.errors import ConfigError
from sfumato.train.config import DataConfig, RunConfig, TrainConfig
from sfumato.train.data import open_samples
from sfumato.train.division import Division, in_buckets
from sfumato.train.plan import passes
from sfumato.train.prior import PriorConfig, WithClass, alternate, draw_missing, importance, is_class, open_class

CLASS = "an astronaut"
SUBJECT = "an xyz astronaut"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.start_model("sd1", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.plain_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.plain_pictures(tmp_path_factory.mktemp("class"), {"x": tiny.GREEN, "y": (30, 140, 60)})


def sections(model: Path, pictures: Path, folder: Path, **prior: Any) -> dict[str, dict[str, Any]]:
    return {
        "start": {"model": str(model)},
        "data": {"source": str(pictures), "caption": SUBJECT},
        "lora": {"rank": 4, "unet": ["transformers"]},
        "prior": {"source": str(folder), "prompt": CLASS, "count": 2, **prior},
    }


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_missing_pictures_are_drawn_once_each_from_its_number(model: Path, tmp_path: Path) -> None:
    loaded = sfumato.load(model)
    run = RunConfig(output="", steps=1, batch=2, seed=40)
    config = TrainConfig(run=run, data=open_config(tmp_path))
    whole = PriorConfig(source=str(tmp_path / "whole"), prompt=CLASS, count=3)
    assert [path.name for path in draw_missing(loaded, whole, config)] == [f"prior-{n:06d}.png" for n in range(3)]
    first = digests(tmp_path / "whole")
    assert len(set(first.values())) == 3
    (tmp_path / "whole" / "prior-000001.png").unlink()
    assert [path.name for path in draw_missing(loaded, whole, config)] == ["prior-000001.png"]
    assert draw_missing(loaded, whole, config) == []
    assert digests(tmp_path / "whole") == first
    [alone] = sfumato.generate(loaded, sfumato.Request(prompt=CLASS, seed=42, width=16, height=16))
    with Image.open(tmp_path / "whole" / "prior-000002.png") as drawn:
        assert drawn.tobytes() == alone.tobytes()


def open_config(folder: Path) -> DataConfig:
    return DataConfig(source=str(folder), size=tiny.SIZE)


def test_pictures_that_are_there_count_and_say_the_prompt(model: Path, others: Path, tmp_path: Path) -> None:
    config = TrainConfig(run=RunConfig(output="", steps=1, batch=2), data=open_config(tmp_path))
    there = PriorConfig(source=str(tiny.plain_pictures(tmp_path / "class")), prompt=CLASS, count=4)
    assert [path.name for path in draw_missing(sfumato.load(model), there, config)] == ["prior-000003.png"]
    samples = open_class(there, config)
    assert samples.length == 4
    assert samples.captions(range(4), range(4)) == [CLASS] * 4


def both(subject: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]], folder: Path) -> WithClass:
    """Sets of pictures of these sizes, each in a bucket of its own size."""
    sets = []
    for name, sizes in (("subject", subject), ("class", others)):
        for number, size in enumerate(sizes):
            picture(folder / name / f"{number}.png", size=size, text=name)
        sets.append(open_samples(DataConfig(source=str(folder / name), size=16, buckets=True)))
    return WithClass(*sets)


def test_every_other_sample_is_the_class_and_each_half_has_its_own_epochs(tmp_path: Path) -> None:
    run = RunConfig(output="", steps=1, batch=4, microbatch=1, accumulate=4)
    division = alternate(Division(3, (3, 1, 2), (0,)), both([(16, 16)] * 4, [(16, 16)] * 2, tmp_path), run, seed=1)
    numbers = [n for step in range(3) for part in passes(run, step, step * 4) for n in part.numbers]
    found = [division.indices(1, [number])[0] for number in numbers]
    assert sorted(found[::2][:3]) == [1, 2, 3] == sorted(found[::2][3:])
    assert all(sorted(found[1::2][at : at + 2]) == [4, 5] for at in (0, 2, 4))
    assert found == division.indices(1, numbers)
    assert division.held == (0,)


@pytest.mark.parametrize("others", [[(16, 16)] * 3, [(32, 8), (8, 32), (32, 8)]])
def test_microbatches_take_turns_where_there_are_several_sizes(tmp_path: Path, others: list[tuple[int, int]]) -> None:
    run = RunConfig(output="", steps=1, batch=4, microbatch=2)
    sets = both([(32, 8), (8, 32), (32, 8)], others, tmp_path)
    subject = in_buckets(Division(3, range(3), ()), sets.parts[0], 2, 1)
    division = alternate(subject, sets, run, seed=1)
    assert not division.of_one_size
    found = division.indices(1, range(24))
    for first in range(0, 24, 2):
        some = found[first : first + 2]
        assert len({sets.bucket(index) for index in some}) == 1
        assert all((index >= 3) == is_class(first, 2) for index in some)
        assert division.indices(1, range(first, first + 2)) == some
    assert Counter(found) == Counter({index: 4 for index in range(6)})  # 24 samples: 4 rounds of each half
    with pytest.raises(ConfigError, match=r"run\.microbatch to a divisor of 2"):
        alternate(subject, sets, replace(run, microbatch=4), seed=1)


def test_the_loss_is_the_mean_of_the_subject_and_the_weighted_mean_of_the_class() -> None:
    errors = torch.tensor([1.0, 10.0, 3.0, 30.0])
    assert float((errors * importance(range(4), 0.5)).mean()) == pytest.approx((1 + 3) / 2 + 0.5 * (10 + 30) / 2)


@pytest.mark.parametrize("kind", ["lora", "unet"])
def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(
    model: Path, pictures: Path, tmp_path: Path, kind: str
) -> None:
    given = sections(model, pictures, tmp_path / "class", weight=0.7)
    if kind == "unet":
        del given["lora"]
    tiny.assert_interruption_changes_nothing(kind, tmp_path, given)
    assert len(list((tmp_path / "class").iterdir())) == 2


def test_one_pass_and_several_give_the_same_gradients(
    model: Path, pictures: Path, others: Path, tmp_path: Path
) -> None:
    tiny.assert_passes_change_nothing("lora", tmp_path, sections(model, pictures, others, weight=0.7))


def test_the_class_is_kept_where_it_is_shown(model: Path, pictures: Path, others: Path, tmp_path: Path) -> None:
    run = {"steps": 40, "batch": 4, "microbatch": 4}
    for name, weight in (("kept", 3.0), ("lost", 0.0)):
        given = {**sections(model, pictures, others, weight=weight), "run": run, "optimizer": {"rate": 1e-2}}
        tiny.train("lora", tmp_path / name, given)
    kept, lost = (sum(tiny.losses(tmp_path / name, "mse_class")[-10:]) for name in ("kept", "lost"))
    assert kept < 0.95 * lost


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prior": {"count": 0}}, r"prior\.count is 0"),
        ({"prior": {"weight": -1.0}}, r"prior\.weight is -1\.0"),
        ({"prior": {"prompt": " "}}, r"prior\.prompt is empty"),
        ({"prior": {"wait": 1.0}}, r"prior: unknown key 'wait'; did you mean 'weight'"),
        ({"run": {"batch": 3}}, r"run\.batch is 3; .* an even number"),
        ({"data": {"source": "world"}}, r"\[prior\] goes with pictures"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    model: Path, pictures: Path, tmp_path: Path, wrong: dict[str, dict[str, Any]], message: str
) -> None:
    given = sections(model, pictures, tmp_path / "class")
    for section, values in wrong.items():
        given[section] = {**given.get(section, {}), **values}
    with pytest.raises(ConfigError, match=message):
        tiny.train("lora", tmp_path / "run", given)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "class").exists()
