"""What is installed from a wheel: the weights and the vocabulary are in it, and it draws without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sfumato

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "src" / "sfumato" / "embedded"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network."""
    pytest.importorskip("hatchling", reason="the build backend of requirements.lock is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--quiet", "--wheel-dir", str(folder)], check=True, cwd=folder)
    return next(folder.glob("sfumato-*.whl"))


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "src"
    here = {
        str(path.relative_to(package))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("sfumato/")}
        metadata = archive.read(f"sfumato-{sfumato.__version__}.dist-info/METADATA").decode()
    assert inside == here
    assert {"sfumato/py.typed", "sfumato/text/clip_vocabulary/merges.txt.gz"} <= inside
    assert any(name.startswith("sfumato/embedded/") and name.endswith("unet/config.json") for name in inside)
    for peer in ("diffusers", "transformers", "accelerate"):  # oracles of the tests, never needed to draw
        assert f"Requires-Dist: {peer}" not in metadata


@pytest.mark.skipif(not list(EMBEDDED.glob("*/model_index.json")), reason="this checkout has no embedded model")
def test_the_demo_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*command, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(place), "SFUMATO_HOME": str(tmp_path / "home")}
    code = "import sfumato; print(sfumato.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert Path(found.stdout.strip()) == place / "sfumato" / "__init__.py"
    demo = [sys.executable, "-m", "sfumato", "demo", "--output", "demo"]
    done = subprocess.run(demo, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert names == [
        "txt2img.png",
        "txt2img-2.png",
        "txt2img-3.png",
        "txt2img-4.png",
        "img2img.png",
        "mask.png",
        "inpaint.png",
        "grid.png",
    ]
    assert all((tmp_path / "demo" / name).stat().st_size > 0 for name in names)
