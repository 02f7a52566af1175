"""Prompts on the command line: what encode shows, regions, styles, and the words that the embedded model knows."""

import json
from pathlib import Path

import pytest
from cli_run import Run
from PIL import Image

from sfumato.cli.drawing import tell_unseen
from sfumato.request import Request


def test_encode_shows_loras_parts_and_stretches(sfumato: Run, model: Path) -> None:
    prompt = "a (cat:1.2) [x:y:0.5]<lora:style:0.5:0.8> AND grass :0.6"
    told = sfumato("encode", prompt, "-m", model, "--steps", 10)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0] == "LoRA: style:0.8:0.5"
    assert "weight 1, steps 1 to 5: a (cat:1.2) x" in lines
    assert "weight 1, steps 6 to 10: a (cat:1.2) y" in lines
    assert "weight 0.6, steps 1 to 10: grass" in lines
    assert any("cat(1.2)" in line for line in lines)
    document = json.loads(sfumato("encode", prompt, "-m", model, "--json").stdout)
    assert document["prompt"] == prompt
    assert [part["weight"] for part in document["parts"]] == [1.0, 0.6]
    assert [each["until"] for each in document["parts"][0]["stretches"]] == [10, 20]
    assert document["loras"] == [{"name": "style", "weight": 0.8, "text_weight": 0.5}]
    drawn = {sfumato("encode", "{a|b|c}", "-m", model, "--seed", seed).stdout.splitlines()[0] for seed in range(6)}
    assert len(drawn) > 1
    assert drawn <= {"drawn: a", "drawn: b", "drawn: c"}


def test_regions_and_dialects_are_drawn_with_and_replayed(sfumato: Run, model: Path, here: Path) -> None:
    Image.new("L", (64, 64), 255).save(here / "mask.png")
    words = ("txt2img", "a tree", "-m", model, "--steps", 1, "--dialect", "compel", "--seed", 1)
    done = sfumato(*words, "--region", "left@0.5: a house+", "--region", "mask.png@0.3: x", "-o", "a.png", "--json")
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)["request"]
    assert request["dialect"] == "compel"
    assert request["regions"][0] == {"prompt": "a house+", "area": [0, 0, 0.5, 1], "weight": 0.5}
    assert sfumato("replay", "a.png", "--verify").returncode == 0
    for wrong in ("left a house", "nowhere.png: x"):
        failed = sfumato(*words, "--region", wrong)
        assert failed.returncode in (1, 2)
        assert "region" in failed.stderr or "nowhere.png" in failed.stderr
    unknown = sfumato(*words, "--style", "none")
    assert unknown.returncode == 2
    assert "which is no style" in unknown.stderr


def test_words_that_the_embedded_model_has_never_seen_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    tell_unseen(Request(prompt=("a purple elephant", "an elephant AND a <lora:x:1> __pets__ tree")))
    told = capsys.readouterr().err
    assert told.count("elephant") == 1
    assert "`sfumato scenes vocabulary`" in told
    assert "pets" not in told
    for request in (
        Request(prompt="a red house at sunset"),
        Request(prompt="a purple elephant", model="other"),
        Request(prompt="a purple elephant", embeddings=["elephant.safetensors"]),
    ):
        tell_unseen(request)
    assert capsys.readouterr().err == ""
