"""New words on the command line: drawn with, told, replayed."""

import json
from pathlib import Path

import pytest
import torch
from cli_run import Run

from sfumato.cli.options import parse_embedding
from sfumato.weights.embeddings import WordVectors, save_embedding
from sfumato.weights.load import load


@pytest.fixture
def toy(model: Path, here: Path) -> Path:
    """A word for the tiny model."""
    width = load(model).text.encoders[0].config.hidden_size
    return save_embedding(here / "toy.safetensors", WordVectors("<toy>", (torch.ones(2, width),)))


def test_a_new_word_is_drawn_with_and_replayed(sfumato: Run, model: Path, here: Path, toy: Path) -> None:
    words = ("txt2img", "a <my-toy>", "-m", model, "--steps", 1, "--embedding", "toy.safetensors:<my-toy>")
    done = sfumato(*words, "-o", "a.png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["request"]["embeddings"] == [{"name": "toy.safetensors", "word": "<my-toy>"}]
    assert "embeddings: toy.safetensors:<my-toy>" in sfumato("info", "a.png").stdout
    assert sfumato("replay", "a.png", "--verify").returncode == 0
    toy.unlink()
    gone = sfumato("replay", "a.png", "--verify")
    assert gone.returncode == 1
    assert "the embedding 'toy.safetensors' is not there" in gone.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("toy.safetensors", ("toy.safetensors",)),
        ("toy.safetensors:<toy>", ("toy.safetensors", "<toy>")),
        ("toy:", ("toy:",)),
        ("org/toy:word", ("org/toy", "word")),
    ],
)
def test_an_embedding_is_a_name_and_a_word(text: str, expected: tuple[str, ...]) -> None:
    assert parse_embedding(text) == expected


def test_a_colon_may_be_part_of_a_path(here: Path) -> None:
    path = here / "a:b.safetensors"
    path.write_bytes(b"")
    assert parse_embedding(str(path)) == (str(path),)
    assert parse_embedding(f"{path}:<toy>") == (str(path), "<toy>")
