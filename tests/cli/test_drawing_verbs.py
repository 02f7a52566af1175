"""txt2img, img2img and inpaint as processes: what is written, what goes to which stream, and how they end."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from cli_run import SIDE, Run
from PIL import Image


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_txt2img_prints_one_path_a_line_and_nothing_else(sfumato: Run, model: Path, here: Path) -> None:
    done = sfumato("txt2img", "a red house", "a tree", "-m", model, "--seed", 7, "--count", 2, "--grid")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    paths = done.stdout.splitlines()
    assert len(paths) == 5  # two prompts, two pictures each, and their grid
    assert [path.split("-", 2)[2] for path in paths[:4]] == [
        "7-a-red-house.png",
        "8-a-red-house.png",
        "9-a-tree.png",
        "10-a-tree.png",
    ]
    assert all(pixels(here / path).shape == (SIDE, SIDE, 3) for path in paths[:4])
    assert pixels(here / paths[4]).shape == (2 * SIDE, 2 * SIDE, 3)
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*.*")) == sorted(paths)


def test_json_is_one_document_with_paths_seeds_and_the_resolved_request(sfumato: Run, model: Path, here: Path) -> None:
    words = ("txt2img", "-", "-m", model, "--seed", 3, "--size", "72x40", "--json", "-o", "out/")
    done = sfumato(*words, stdin="a red house\n\n  a tree \n")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["finished"] is True
    assert [(each["prompt"], each["seed"]) for each in document["pictures"]] == [("a red house", 3), ("a tree", 4)]
    assert document["request"]["steps"] == 3  # the model's own default
    for each in document["pictures"]:
        assert Path(each["path"]).parent == Path("out")
        assert pixels(here / each["path"]).shape == (40, 72, 3)


def test_inpaint_writes_the_named_file_and_keeps_the_bytes_outside_of_the_mask(
    sfumato: Run, model: Path, here: Path, photo: Path, mask: Path
) -> None:
    done = sfumato("inpaint", photo, mask, "a tree", "-m", model, "--seed", 1, "-o", "new/edited.png")
    assert (done.returncode, done.stdout) == (0, "new/edited.png\n"), done.stderr
    before, after = pixels(photo), pixels(here / "new/edited.png")
    assert np.array_equal(before[:, : SIDE // 2], after[:, : SIDE // 2])
    assert not np.array_equal(before, after)


def test_a_picture_is_replayed_identically_and_tells_how_it_was_made(
    sfumato: Run, model: Path, here: Path, photo: Path
) -> None:
    drawn = sfumato("img2img", photo, "a tree", "-m", model, "--strength", 0.7, "--seed", 5, "-o", "tree.png")
    assert drawn.returncode == 0, drawn.stderr
    again = sfumato("replay", "tree.png", "--verify")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("identical")
    told = json.loads(sfumato("info", "tree.png", "--json").stdout)
    assert (told["tool"], told["prompt"], told["settings"]["seed"]) == ("sfumato", "a tree", 5)
    with Image.open(here / "tree.png") as picture:
        assert picture.text["parameters"].startswith("a tree\nSteps: 3")


def test_no_metadata_leaves_nothing_in_the_file(sfumato: Run, model: Path, here: Path) -> None:
    done = sfumato("txt2img", "a tree", "-m", model, "--no-metadata", "-o", "plain.png")
    assert done.returncode == 0, done.stderr
    with Image.open(here / "plain.png") as picture:
        assert picture.text == {}
    assert sfumato("info", "plain.png").stdout == "no metadata about how it was made\n"


def test_ctrl_c_keeps_what_is_finished_and_exits_with_130(model: Path, here: Path, environment: dict[str, str]) -> None:
    # a test run in the background is deaf to Ctrl-C, and its children too: the first line makes them hear again
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}\nfrom sfumato.cli import main\nmain()"
    words = ["txt2img", "a tree", "-m", str(model), "--count", "2000", "--steps", "5"]
    command = [sys.executable, "-c", code, *words]
    running = subprocess.Popen(
        command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    first = running.stdout.readline().strip()
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stderr == "sfumato: interrupted; what was finished is kept.\n"
    told = [first, *stdout.splitlines()]
    assert sorted(path.name for path in (here / "outputs").iterdir()) == sorted(Path(path).name for path in told)
    assert all(pixels(here / path).shape == (SIDE, SIDE, 3) for path in told)


def test_the_bar_goes_to_the_terminal_and_the_paths_into_the_pipe(
    model: Path, here: Path, environment: dict[str, str]
) -> None:
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "sfumato",
        "txt2img",
        "a tree",
        "-m",
        str(model),
        "-o",
        "tree.png",
        "--steps",
        "30",
    ]
    environment = {**environment, "TERM": "xterm", "COLUMNS": "80"}
    running = subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux ends a terminal whose other side is closed
            break
        if not part:
            break
        shown += part
    stdout, _ = running.communicate(timeout=60)
    os.close(ours)
    assert (running.returncode, stdout) == (0, "tree.png\n")
    assert b"drawing" in shown
    assert b"tree.png" not in shown


def test_reconstruct_tells_the_likeness_and_writes_both_side_by_side(
    sfumato: Run, model: Path, here: Path, photo: Path
) -> None:
    done = sfumato("reconstruct", photo, "-m", model, "--side-by-side", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert 0 < document["psnr_db"] < 60
    assert -1 <= document["ssim"] <= 1
    both = pixels(here / document["path"])
    assert both.shape == (SIDE, 2 * SIDE, 3)
    assert np.array_equal(both[:, :SIDE], pixels(photo))


def test_encode_shows_ids_and_saves_what_the_text_encoder_makes(sfumato: Run, model: Path, here: Path) -> None:
    from safetensors.numpy import load_file

    words = "a photograph of an astronaut riding a horse"
    done = sfumato("encode", words, "-m", model, "--json", "--save", "features.safetensors")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [each["id"] for each in document["tokens"]] == [320, 8853, 539, 550, 18376, 6765, 320, 4558]  # OpenAI's CLIP
    assert document["chunks"] == [[49406, *(each["id"] for each in document["tokens"]), *[49407] * 68]]
    assert load_file(here / "features.safetensors")["context"].shape == (1, 77, 32)


def test_a_broken_pipe_is_no_traceback(model: Path, here: Path, environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m sfumato scenes caption --count 20000 | head -n 1"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=here, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_help_takes_less_than_three_tenths_of_a_second_of_computing(sfumato: Run) -> None:
    """Computing, not waiting: others may have the cores meanwhile. The least of several counts."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert sfumato("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_outpaint_grows_a_picture_and_hires_a_drawing(sfumato: Run, model: Path, here: Path, photo: Path) -> None:
    done = sfumato("outpaint", photo, "a tree", "-m", model, "--left", 16, "--feather", 4, "-o", "grown.png")
    assert (done.returncode, done.stdout) == (0, "grown.png\n"), done.stderr
    before, after = pixels(photo), pixels(here / "grown.png")
    assert after.shape == (before.shape[0], before.shape[1] + 16, 3)
    assert np.array_equal(before[:, 4:], after[:, 20:])
    more = ("--hires", 1.5, "--hires-strength", 0.5, "--variation", "0.2:7", "--seed-size", "32x32")
    done = sfumato("txt2img", "a tree", "-m", model, "--seed", 1, "-o", "large.png", *more)
    assert done.returncode == 0, done.stderr
    assert pixels(here / "large.png").shape == (3 * SIDE // 2, 3 * SIDE // 2, 3)
    done = sfumato("txt2img", "a tree", "-m", model, "--hires-steps", 3)
    assert done.returncode == 2
    assert "--hires" in done.stderr


def test_encode_keeps_what_it_shows_apart_from_the_path_that_it_wrote(sfumato: Run, model: Path, here: Path) -> None:
    shown = sfumato("encode", "a", "-m", model).stdout
    assert shown.startswith("1 token in 1 chunk of at most 75\n")
    done = sfumato("encode", "a", "-m", model, "--save", "features.safetensors")
    assert (done.returncode, done.stdout, done.stderr) == (0, "features.safetensors\n", shown)
    assert sfumato("encode", "a tree", "-m", model).stdout.startswith("2 tokens in 1 chunk of at most 75\n")


def test_upscale_with_and_without_words(sfumato: Run, model: Path, here: Path, photo: Path) -> None:
    before = pixels(photo)
    done = sfumato("upscale", photo, "--upscaler", "nearest", "--scale", 2, "-o", "plain.png")
    assert (done.returncode, done.stdout) == (0, "plain.png\n"), done.stderr
    assert np.array_equal(pixels(here / "plain.png"), before.repeat(2, 0).repeat(2, 1))
    words = ("--prompt", "a tree", "--strength", 0.5, "--seed", 1, "-m", model, "--steps", 2)
    done = sfumato("upscale", photo, "--size", "80x80", *words, "-o", "drawn.png")
    assert done.returncode == 0, done.stderr
    assert pixels(here / "drawn.png").shape == (80, 80, 3)
    done = sfumato("upscale", photo, "--upscaler", "magic")
    assert done.returncode == 2  # as --hires-upscaler magic
    assert "no upscaler 'magic'" in done.stderr
