"""grid as a process: files and a sheet, and what is kept when it is interrupted."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from cli_run import SIDE, Run
from PIL import Image

from sfumato.metadata import describe


def test_grid_writes_each_cell_and_a_labelled_sheet(sfumato: Run, model: Path, here: Path) -> None:
    axes = ("--x", "steps=1-3 (+2)", "--y", "prompt=house,tree")
    done = sfumato("grid", "a red house", "-m", model, "--seed", 3, *axes, "--json", "-o", "out/")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["finished"] is True
    assert [each["values"] for each in document["pictures"]] == [
        {"steps": steps, "prompt": word} for word in ("house", "tree") for steps in ("1", "3")
    ]
    for each in document["pictures"]:
        request = describe(here / each["path"]).request
        assert request is not None
        assert (request.seed, request.steps) == (3, int(each["values"]["steps"]))
    with Image.open(here / document["grid"]) as sheet:
        assert sheet.width > 2 * SIDE
        assert sheet.height > 2 * SIDE
        assert "X Values" in sheet.text["parameters"]  # type: ignore[attr-defined]
    done = sfumato("replay", document["grid"], "--verify")
    assert done.returncode == 1
    assert f"{document['grid']} is the sheet of a grid, and no picture that was drawn; replay the" in done.stderr


def test_the_name_that_is_given_is_that_of_the_sheet(sfumato: Run, model: Path, here: Path) -> None:
    words = ("grid", "a house", "-m", model, "--x", "seed=1,2", "--steps", 1, "-o", "all.png")
    done = sfumato(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["all-1.png", "all-2.png", "all.png"]
    with Image.open(here / "all.png") as sheet:
        assert sheet.width > 2 * SIDE
    (here / "all-1.png").unlink()
    (here / "all-2.png").unlink()
    done = sfumato(*words)
    assert done.returncode == 1
    assert "all.png exists" in done.stderr and not (here / "all-1.png").exists()
    assert sfumato(*words, "--overwrite").returncode == 0


def test_a_grid_needs_an_axis_that_there_is(sfumato: Run, model: Path) -> None:
    for axes, said in (((), "--x"), (("--x", "stepps=1"), "stepps"), (("--x", "steps=0,1"), "steps is 0")):
        done = sfumato("grid", "a house", "-m", model, *axes)
        assert done.returncode == 2
        assert said in done.stderr


def test_an_interrupted_grid_keeps_what_was_made(model: Path, here: Path, environment: dict[str, str]) -> None:
    # a test run in the background is deaf to Ctrl-C, and its children too: the first line makes them hear again
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}\nfrom sfumato.cli import main\nmain()"
    words = ["grid", "a house", "-m", str(model), "--x", "seed=1-400", "-o", "out/", "--steps", "5"]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    first = running.stdout.readline().strip()
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    told = [first, *stdout.splitlines()]
    assert told[-1].endswith("-grid.png")
    assert len(told) < 400
    assert sorted(path.name for path in (here / "out").iterdir()) == sorted(Path(path).name for path in told)
    with Image.open(here / told[-1]) as sheet:
        assert sheet.width > 400 * SIDE
