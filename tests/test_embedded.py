"""The model that ships: it is small, diffusers draws the same picture with it, and the README's examples run."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import sfumato

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "src" / "sfumato" / "embedded" / "drawn-world"


def test_it_takes_at_most_48_megabytes() -> None:
    package = ROOT / "src" / "sfumato" / "embedded"
    assert sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) <= 48e6


def test_diffusers_draws_the_same_picture_from_the_same_folder() -> None:
    model = sfumato.load()
    request = sfumato.Request(prompt="a red house on green grass", negative_prompt="at night", seed=11)
    ours = sfumato.generate(model, request)[0]
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(EMBEDDED, safety_checker=None, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        request.prompt,
        negative_prompt=request.negative_prompt,
        num_inference_steps=model.family.steps,
        guidance_scale=model.family.guidance,
        generator=torch.Generator("cpu").manual_seed(11),
    ).images[0]
    assert ours.size == theirs.size
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).max() <= 1  # rounded on both sides


@pytest.fixture
def workshop(tmp_path: Path) -> Callable[[list[str]], str]:
    """Runs a program in a folder that has a mask, and returns what it printed."""
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).rectangle((32, 32, 96, 96), fill=255)
    mask.save(tmp_path / "mask.png")

    def run(command: list[str]) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    return run


def block(heading: str, language: str) -> str:
    """The first code block of a language under a heading of the README."""
    section = (ROOT / "README.md").read_text().split(f"## {heading}\n")[1]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]  # type: ignore[index]


@pytest.mark.slow
def test_every_command_of_the_readme_runs(workshop: Callable[[list[str]], str]) -> None:
    for line in block("On the command line", "sh").splitlines():
        assert line.startswith("sfumato ")
        workshop(["/bin/sh", "-c", f"{sys.executable} -m {line}"])


@pytest.mark.slow
def test_the_python_of_the_readme_runs(workshop: Callable[[list[str]], str]) -> None:
    assert workshop([sys.executable, "-c", block("In Python", "python")]).splitlines()[-1] == "identical"
