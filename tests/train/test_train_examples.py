"""The examples of the documentation are the files in configs/examples, and they train."""

import math
import tomllib
from pathlib import Path

import pytest
import tiny_start as tiny

from sfumato.train import run_training
from sfumato.train.config import read_config

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "configs" / "examples").glob("*.toml"))
KINDS = {"dreambooth": "lora"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.start_model("sd1", tmp_path_factory.mktemp("model"))


def tiny_changes(path: Path, model: Path, folder: Path) -> list[str]:
    """What makes an example one step of a tiny model on three pictures."""
    pictures = tiny.plain_pictures(folder / "pictures")
    for name in ("a", "b", "c"):
        (pictures / f"{name}.txt").write_text("a photo of <my-toy>")
    there = {
        "output": str(folder / "run"),
        "steps": 1,
        "batch": 2,
        "microbatch": 1,
        "precision": "float32",
        "log_every": 1,
    }
    changes = [f"run.{key}={tiny.value(each)}" for key, each in there.items()]
    changes += [f'data.source="{pictures}"', f"data.size={tiny.SIZE}", f'start.model="{model}"']
    if "validation" in tomllib.loads(path.read_text())["data"]:
        changes += ["data.validation=1"]
    if read_config(path).prior:
        changes += [f'prior.source="{folder / "class"}"', "prior.count=1"]
    return changes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_stands_in_the_documentation_word_for_word(path: Path) -> None:
    assert f"```toml\n{path.read_text()}```" in (ROOT / "docs" / "training.md").read_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains(path: Path, model: Path, tmp_path: Path) -> None:
    changes = tiny_changes(path, model, tmp_path)
    assert run_training(KINDS.get(path.stem, path.stem), path, changes) == 1
    assert any((tmp_path / "run" / "export").iterdir())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_in_half_precision_with_mirrors_and_recomputed_activations(
    path: Path, model: Path, tmp_path: Path
) -> None:
    changes = [*tiny_changes(path, model, tmp_path), 'run.precision="bf16"', "run.recompute=true", "data.mirror=true"]
    assert run_training(KINDS.get(path.stem, path.stem), path, changes) == 1
    [loss] = tiny.losses(tmp_path / "run")
    assert math.isfinite(loss)


def test_there_is_an_example_of_each_recipe() -> None:
    assert [path.stem for path in EXAMPLES] == ["dreambooth", "inpainting", "inversion", "lora"]
