"""LoRAs on the command line: drawn with, shown, converted."""

import json
from pathlib import Path

import pytest
import torch
from cli_run import Run
from safetensors.torch import load_file

from sfumato.cli.options import parse_lora
from sfumato.nn.lora import Target, create
from sfumato.weights.load import load
from sfumato.weights.lora_save import save_lora


@pytest.fixture
def style(model: Path, here: Path) -> Path:
    """A LoRA for the tiny model."""
    loaded = load(model)
    made = {
        "unet": create(loaded.unet, [Target("*attentions.*", 4, 2.0)]),
        "text_encoder": create(loaded.text.encoders[0], [Target("*.mlp.*", 2)]),
    }
    for adapters in made.values():
        for _, adapter in adapters.items():
            adapter.up.data.fill_(0.05)
    return save_lora(here / "style.safetensors", made)


def test_a_lora_is_drawn_with_and_replayed(sfumato: Run, model: Path, here: Path, style: Path) -> None:
    words = ("txt2img", "a tree", "-m", model, "--steps", 1, "--lora", "style.safetensors:0.8:0.5")
    done = sfumato(*words, "-o", "styled.png", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["request"]["loras"]
    assert told == [{"name": "style.safetensors", "weight": 0.8, "text_weight": 0.5}]
    assert "loras: style.safetensors:0.8:0.5" in sfumato("info", "styled.png").stdout
    assert sfumato("replay", "styled.png", "--verify").returncode == 0
    style.unlink()
    gone = sfumato("replay", "styled.png", "--verify")
    assert gone.returncode == 1
    assert "the LoRA 'style.safetensors' is not there" in gone.stdout


def test_a_lora_is_shown_and_converted(sfumato: Run, here: Path, style: Path) -> None:
    shown = sfumato("models", "show", style)
    assert shown.returncode == 0, shown.stderr
    assert "dialect: kohya" in shown.stdout
    assert "of rank 4 and alpha 2" in shown.stdout
    done = sfumato("models", "convert", style, "peft.safetensors", "--to", "peft")
    assert (done.returncode, done.stdout) == (0, "peft.safetensors\n"), done.stderr
    document = json.loads(sfumato("models", "show", "peft.safetensors", "--json").stdout)
    assert document["lora"]["dialect"] == "peft"
    assert document["lora"]["networks"]["text_encoder"] == [{"kind": "LoRA", "rank": 2, "alpha": 2.0, "layers": 4}]
    back = sfumato("models", "convert", "peft.safetensors", "back.safetensors", "--to", "kohya")
    assert back.returncode == 0, back.stderr
    first, again = load_file(style), load_file(here / "back.safetensors")
    assert set(first) == set(again)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_wrong_loras_and_dialects_are_told(sfumato: Run, model: Path, style: Path) -> None:
    wrong = sfumato("models", "convert", style, "a.safetensors", "--to", "lycoris")
    assert wrong.returncode == 2
    assert "kohya, diffusers, peft" in wrong.stderr
    assert sfumato("txt2img", "x", "-m", model, "--lora", "style.safetensors:99").returncode == 2
    gone = sfumato("txt2img", "x", "-m", model, "--lora", "nowhere.safetensors")
    assert gone.returncode == 1
    assert "the LoRA 'nowhere.safetensors' is not there" in gone.stderr


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a.safetensors", ("a.safetensors",)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("a.safetensors:-1:.5", ("a.safetensors", -1.0, 0.5)),
        (r"C:\loras\a.safetensors:0.8", (r"C:\loras\a.safetensors", 0.8)),
        ("dir:1/a.safetensors", ("dir:1/a.safetensors",)),
        ("org/name:1:2:3", ("org/name:1", 2.0, 3.0)),
        ("a:high", ("a:high",)),
    ],
)
def test_the_weights_are_what_stands_after_the_last_colons(text: str, parsed: tuple[object, ...]) -> None:
    assert parse_lora(text) == parsed


def test_a_path_that_exists_is_a_path_whole(tmp_path: Path) -> None:
    (tmp_path / "a:0.5").touch()
    assert parse_lora(f"{tmp_path}/a:0.5") == (f"{tmp_path}/a:0.5",)
    assert parse_lora(f"{tmp_path}/a:0.5:0.7") == (f"{tmp_path}/a:0.5", 0.7)
