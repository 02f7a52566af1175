"""`make embedded`: its commands follow on each other, from nothing to a model that draws."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FEW = "run.steps=2 run.batch=8 data.pool=16 data.validation=4"
IMAGINED = "imagined.count=2 imagined.steps=2"


def commands() -> list[list[str]]:
    """What `make` would run, after it has made the environment."""
    lines = subprocess.run(["make", "-n", "embedded"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    every = [shlex.split(line) for line in lines.replace("\\\n", " ").splitlines()]
    return every[next(at for at, words in enumerate(every) if words[:2] == [".venv/bin/sfumato", "train"]) :]


def shortened(words: list[str]) -> list[str]:
    """The same command with this Python, and a run of two steps."""
    if words[0] != ".venv/bin/sfumato":
        return words
    if words[1] == "train":
        config = (ROOT / words[3]).read_text()
        changes = f"{FEW} {IMAGINED}" if "[imagined]" in config else FEW
        words = [*words, *(word for change in changes.split() for word in ("--set", change))]
    return [sys.executable, "-m", "sfumato", *words[1:]]


def test_every_configuration_is_used_once() -> None:
    used = [word for words in commands() for word in words if word.startswith("configs/")]
    there = [f"configs/embedded/{path.name}" for path in (ROOT / "configs" / "embedded").glob("*.toml")]
    assert sorted(used) == sorted(there)


@pytest.mark.slow
def test_the_embedded_model_is_made_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    made = tmp_path / "src" / "sfumato" / "embedded"
    made.mkdir(parents=True)
    for words in commands():
        done = subprocess.run(shortened(words), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    assert (made / "reader.safetensors").is_file()
    draw = [
        sys.executable,
        "-m",
        "sfumato",
        "txt2img",
        "a tree",
        "--model",
        str(made / "drawn-world"),
        "-o",
        "tree.png",
    ]
    done = subprocess.run(draw, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tree.png").is_file()
