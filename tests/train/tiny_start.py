"""Tiny random models to start from, sets of plain pictures, and runs of a few steps."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from sfumato.train import checkpoint, run_training

sys.path.append(str(Path(__file__).parents[1] / "weights"))
from weights_pipelines import pipeline  # the tests of the files have made them already

SIZE = 16  # pixels; 8 x 8 latent cells with a stride of 2
RUN = {"steps": 4, "batch": 4, "microbatch": 1, "log_every": 1, "validate_every": 1000, "sheet_every": 1000, "ema": 0.0}
OPTIMIZER = {"rate": 1e-3, "warmup": 0, "schedule": "constant", "weight_decay": 0.0}
RED, GREEN = (220, 30, 20), (20, 160, 40)


def start_model(kind: str, folder: Path) -> Path:
    """A model folder in which a prompt matters to what the network says."""
    made = pipeline(kind, folder)
    generator = torch.Generator().manual_seed(11)
    for network in (made.unet, made.text_encoder):
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    made.save_pretrained(folder / kind)
    return folder / kind


def plain_pictures(folder: Path, colours: Mapping[str, tuple[int, int, int]] | None = None) -> Path:
    """Pictures of one colour each, without captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in (colours or {"a": RED, "b": (200, 40, 30), "c": (230, 20, 40)}).items():
        Image.new("RGB", (20, 18), colour).save(folder / f"{name}.png")
    return folder


def train(kind: str, output: Path, sections: Mapping[str, Mapping[str, Any]], *, resume: bool = False) -> int:
    """Trains with these sections over the tiny defaults; how many steps were done."""
    data = {"size": SIZE, "caption": "a photograph of an astronaut", "seed": 3}
    given = {
        "run": {**RUN, "output": str(output), **sections.get("run", {})},
        "optimizer": {**OPTIMIZER, **sections.get("optimizer", {})},
        "data": {**data, **sections.get("data", {})},
        "loss": {"drop": 0.0, **sections.get("loss", {})},
    }
    path = output.parent / f"{output.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(toml({**sections, **given}))
    return run_training(kind, path, resume=resume)


def toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of plain values as TOML."""
    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {value(each)}\n" for key, each in values.items())
        for section, values in sections.items()
    )


def value(given: Any) -> str:
    """A plain value as TOML."""
    if isinstance(given, dict):
        return "{ " + ", ".join(f"{key} = {value(each)}" for key, each in given.items()) + " }"
    if isinstance(given, list | tuple):
        return "[" + ", ".join(value(each) for each in given) + "]"
    return json.dumps(given)


def state(output: Path) -> dict[str, Tensor]:
    """Weights, averages and moments of the newest checkpoint."""
    path = checkpoint.checkpoints(output)[-1]
    return {
        f"{part}/{key}": value
        for part in checkpoint.PARTS
        for key, value in load_file(path / f"{part}.safetensors").items()
    }


def losses(output: Path, name: str = "loss") -> list[float]:
    """A figure of each line of the log."""
    lines = (json.loads(line) for line in (output / "log.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def assert_interruption_changes_nothing(kind: str, folder: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """A run that is stopped after two steps and resumed ends with the bytes of one that was not stopped."""
    train(kind, folder / "whole", sections)
    first = {
        **sections,
        "run": {**sections.get("run", {}), "steps": 2},
    }
    train(kind, folder / "parts", first)
    train(kind, folder / "parts", sections, resume=True)
    whole, parts = state(folder / "whole"), state(folder / "parts")
    assert whole.keys() == parts.keys()
    assert any(bool(value.any()) for key, value in whole.items() if key.startswith("optimizer/"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def assert_passes_change_nothing(kind: str, folder: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """A step in one pass and in four passes of a sample each has the same loss and gradient, but for rounding.

    The gradient is read from Adam's first moment after one step: its update hides how large it was.
    """
    for name, accumulate in (("one", 1), ("four", 4)):
        run = {**sections.get("run", {}), "accumulate": accumulate, "steps": 1}
        optimizer = {**sections.get("optimizer", {}), "clip": 1e9}
        train(kind, folder / name, {**sections, "run": run, "optimizer": optimizer})
    one, four = state(folder / "one"), state(folder / "four")
    moments = sorted(key for key in one if key.endswith("exp_avg"))
    first, second = (torch.cat([held[key].flatten().double() for key in moments]) for held in (one, four))
    assert bool(first.any())
    assert float((first - second).norm() / first.norm()) < 5e-6  # float32 through some fifty layers
    [old], [new] = losses(folder / "one"), losses(folder / "four")
    assert abs(old - new) <= 2e-6 * abs(old)  # the log has six digits
