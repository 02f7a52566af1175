"""OpenAI's API as its own client from npm calls it."""

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from drawing_server import TOKEN
from PIL import Image

PROGRAM = Path(__file__).with_name("npm")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client's locked version. Skips, with the reason, where that cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm") / "client"
    shutil.copytree(PROGRAM, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"npm's openai cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def test_it_draws_streams_edits_and_is_told_what_is_wrong(installed: Path, drawing: str) -> None:
    command = ["node", "openai.mjs", drawing, TOKEN]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["models"] == ["drawn-world"]
    assert told["events"] in (
        ["image_generation.partial_image", "image_generation.completed"],
        ["image_generation.completed"],  # drawn before a preview was due
    )
    assert told["refused"] == {"name": "BadRequestError", "status": 400, "param": "prompt"}
    assert told["usage"] == 6
    for name in ("picture", "edited"):
        assert Image.open(io.BytesIO(base64.b64decode(told[name]))).size == (128, 128)
    assert told["picture"] != told["edited"]
