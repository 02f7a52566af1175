"""Controls on the command line: drawn with, shown, and what their networks see."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_run import Run
from PIL import Image
from safetensors.torch import save_file

from sfumato.cli.steering import Steered, parse_control, parse_image_prompt, parse_preprocessor
from sfumato.nn.controlnet import ControlNet
from sfumato.weights.load import load


@pytest.fixture
def canny(model: Path, here: Path) -> Path:
    """A ControlNet for the tiny model."""
    loaded = load(model)
    network = ControlNet.of(loaded.unet, loaded.stride)
    for parameter in network.controlnet_mid_block.parameters():
        parameter.data.fill_(0.5)
    save_file(network.state_dict(), here / "canny.safetensors")
    gradient = Image.linear_gradient("L").convert("RGB")
    gradient.save(here / "pose.png")
    return here / "canny.safetensors"


def test_a_control_is_drawn_with_recorded_and_replayed(sfumato: Run, model: Path, here: Path, canny: Path) -> None:
    words = ("txt2img", "a tree", "-m", model, "--steps", 2, "--control", f"{canny.name}:pose.png:0.8:0-0.5")
    done = sfumato(*words, "--preprocessor", "canny:low=20", "--control-mode", "prompt", "-o", "steered.png", "--json")
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["request"]["controls"]
    assert told.pop("image").startswith("sha256:")
    assert told == {
        "model": canny.name,
        "preprocessor": "canny",
        "weight": 0.8,
        "start": 0.0,
        "end": 0.5,
        "mode": "prompt",
        "resize": "crop",
        "options": {"low": 20.0, "high": 200.0},
    }
    assert sfumato("replay", "steered.png", "--verify").returncode == 0


def test_a_control_network_is_shown(sfumato: Run, canny: Path) -> None:
    shown = sfumato("models", "show", canny)
    assert shown.returncode == 0, shown.stderr
    assert "is: a ControlNet for a model of its own sizes" in shown.stdout
    assert "used by: --control" in shown.stdout
    assert "cannot draw" not in shown.stdout


def test_a_wrong_control_is_told_before_any_work(sfumato: Run, model: Path, here: Path, canny: Path) -> None:
    words = ("txt2img", "a tree", "-m", model, "-o", "none.png")
    for extra, told in (
        (("--control", f"{canny.name}:gone.png"), "there is no such file"),
        (("--control", "cany.safetensors:pose.png"), "Did you mean 'canny.safetensors'"),
        (("--control", f"{canny.name}:pose.png:99"), "weight is 99.0; it must be a number from -10 to 10"),
        (("--control", f"{canny.name}:pose.png", "--preprocessor", "cany"), "did you mean 'canny'"),
        (("--preprocessor", "canny"), "given 1 times for 0 controls"),
    ):
        done = sfumato(*words, *extra)
        assert done.returncode in (1, 2)
        assert told in done.stderr
        assert not (here / "none.png").exists()


def test_what_a_network_sees_is_shown(sfumato: Run, canny: Path, here: Path) -> None:
    done = sfumato("control", "threshold:level=100", "pose.png", "-o", "seen.png", "--size", "64x32")
    assert done.returncode == 0, done.stderr
    with Image.open(here / "seen.png") as seen:
        assert (seen.size, seen.mode) == ((64, 32), "RGB")
        assert sorted(seen.convert("L").getcolors()) == sorted(
            [(c, v) for c, v in seen.convert("L").getcolors() if v in (0, 255)]
        )
    wrong = sfumato("control", "threshold:level=999", "pose.png")
    assert wrong.returncode == 2
    assert "from 0 to 255" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("canny", {"model": "canny"}),
        ("canny:pose.png", {"model": "canny", "image": "pose.png"}),
        ("canny:pose.png:0.5", {"model": "canny", "image": "pose.png", "weight": 0.5}),
        ("canny:pose.png:0.5:0-.5", {"model": "canny", "image": "pose.png", "weight": 0.5, "start": 0, "end": 0.5}),
        ("canny:pose.png:0.1-1", {"model": "canny", "image": "pose.png", "start": 0.1, "end": 1.0}),
        ("C:/canny:pose.png", {"model": "C:/canny", "image": "pose.png"}),
        ("canny::0.5", {"model": "canny", "image": "", "weight": 0.5}),
    ],
)
def test_a_control_is_read_from_right_to_left(text: str, fields: dict[str, Any]) -> None:
    assert parse_control(text) == fields


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ip:a.png", {"model": "ip", "images": ["a.png"]}),
        (
            "ip:a.png,b.png:0.6:0-0.5",
            {"model": "ip", "images": ["a.png", "b.png"], "weight": 0.6, "start": 0, "end": 0.5},
        ),
        ("C:/ip:a.png", {"model": "C:/ip", "images": ["a.png"]}),
    ],
)
def test_an_image_prompt_is_read_from_right_to_left(text: str, fields: dict[str, Any]) -> None:
    assert parse_image_prompt(text) == fields
    with pytest.raises(typer.BadParameter, match="must be MODEL:IMAGE"):
        parse_image_prompt("ip")


def test_preprocessors_and_modes_are_one_for_all_or_one_for_each() -> None:
    assert parse_preprocessor("canny:low=1,high=2.5") == ("canny", {"low": 1.0, "high": 2.5})
    one = Steered(control=["a:x", "b:y"], preprocessor=["invert"], control_mode=["prompt", "control"]).fields()
    assert [(each.preprocessor, each.mode) for each in one["controls"]] == [("invert", "prompt"), ("invert", "control")]
