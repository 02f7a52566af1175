"""`sfumato evaluate` as a user has it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.evaluate.measure import TITLES
from sfumato.model import Model
from sfumato.weights.families import SD1_SCHEDULER, SD15
from sfumato.weights.save import save_folder


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = replace(model, family=replace(SD15, size=64, steps=2), scheduler=dict(SD1_SCHEDULER))
    return save_folder(tiny, tmp_path_factory.mktemp("models") / "tiny")


def evaluate(*words: object, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SFUMATO_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "sfumato", "evaluate", *map(str, words)]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, env=environment)


def test_a_report_is_one_document_and_its_files_are_named(folder: Path, tmp_path: Path) -> None:
    words = ("--suite", "size", "--suite", "inpainting", "--count", 2, "--training-scenes", 8, "--json", "-o", "report")
    done = evaluate(folder, *words, home=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {row["suite"] for row in document["rows"]} == {"size", "inpainting"}
    assert document["pictures_drawn"] == 6
    assert document["memorisation"]["training"]["scenes"] == 8
    assert all((tmp_path / path).stat().st_size for path in document["paths"])
    assert "how large (2)" in done.stderr
    assert "pictures a second" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--suite", "colours"), "suites is colours; there are one, two"),
        (("--count", 0), "count is 0; it must be a whole number from 1 to 10000"),
        (("--training-scenes", 0), "training_scenes is 0"),
        (("--reader", "nothing.safetensors"), "nothing.safetensors cannot be read as a reader's weights"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(words: tuple[object, ...], said: str, tmp_path: Path) -> None:
    done = evaluate(*words, home=tmp_path)
    assert done.returncode in (1, 2)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs"))


def test_a_folder_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    done = evaluate("-o", "report", home=tmp_path)
    assert done.returncode == 1
    assert "nothing is overwritten" in done.stderr


def test_the_help_names_every_suite(tmp_path: Path) -> None:
    told = evaluate("--help", home=tmp_path).stdout
    assert all(name in told for name in TITLES)
