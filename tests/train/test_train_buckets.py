"""Training on pictures of several shapes: each in its bucket, the same run however it is divided or interrupted."""

from pathlib import Path
from typing import Any

import pytest
import tiny_start as tiny
from PIL import Image

from sfumato.train.config import read_config
from sfumato.train.lora import LoraTask
from sfumato.train.plan import passes

SHAPES = {"a": (32, 8), "b": (8, 32), "c": (16, 16), "d": (30, 8), "e": (48, 12)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.start_model(kind, root) for kind in ("sd1", "sdxl")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, (name, size) in enumerate(SHAPES.items()):
        Image.new("RGB", size, (50 * number, 200 - 40 * number, 90)).save(folder / f"{name}.png")
    return folder


def sections(model: Path, pictures: Path, **more: Any) -> dict[str, dict[str, Any]]:
    return {
        "start": {"model": str(model)},
        "data": {"source": str(pictures), "buckets": True},
        "lora": {"rank": 4, "unet": ["transformers"]},
        **more,
    }


def test_passes_change_nothing(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    tiny.assert_passes_change_nothing("lora", tmp_path, sections(models["sd1"], pictures))


def test_an_interruption_changes_nothing(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    given = sections(models["sd1"], pictures, run={"batch": 2, "microbatch": 2})
    given["data"] |= {"mirror": True, "validation": 2}
    tiny.assert_interruption_changes_nothing("lora", tmp_path, given)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_each_microbatch_has_the_pictures_and_the_size_of_its_bucket(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str
) -> None:
    given = sections(models[kind], pictures)
    given["run"] = {"output": str(tmp_path / "run"), "steps": 1, "batch": 2, "microbatch": 2}
    given["data"] |= {"size": tiny.SIZE, "caption": "an astronaut"}
    (tmp_path / "task.toml").write_text(tiny.toml(given))
    task = LoraTask(read_config(tmp_path / "task.toml"))
    stride, shapes = task.base.autoencoder.config.stride, set()
    for step in range(8):
        [part] = passes(task.config.run, step, 2 * step)
        batch = task.draw(part)
        (size,) = {task.samples.bucket(index) for index in batch.indices}
        assert batch.clean.shape == (2, 4, size[1] // stride, size[0] // stride)
        assert batch.said is not None
        told = task.conditioning(batch.said, size)
        if kind == "sdxl":
            assert told.size is not None
            assert told.size.tolist() == [[size[1], size[0], 0, 0, size[1], size[0]]] * 2
        shapes.add(size)
    assert shapes == {(32, 8), (8, 32), (16, 16)}


def test_inpainting_and_prior_preservation_know_shapes_too(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    inpainting = sections(models["sd1"], pictures, run={"steps": 1, "sheet_every": 1, "validate_every": 1})
    inpainting["data"]["validation"] = 2
    del inpainting["lora"]
    assert tiny.train("inpainting", tmp_path / "inpainting", inpainting) == 1
    assert (tmp_path / "inpainting" / "sheet-00000001.png").is_file()
    prior = {"source": str(pictures), "prompt": "an astronaut", "count": 5}
    assert tiny.train("lora", tmp_path / "prior", sections(models["sd1"], pictures, prior=prior, run={"steps": 1})) == 1
    assert tiny.losses(tmp_path / "prior", "mse_class")
