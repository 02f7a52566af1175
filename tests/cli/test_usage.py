"""Wrong input: its exit code, one paragraph on stderr that says what was found and what is right, nothing on stdout."""

from pathlib import Path

import pytest
from cli_run import Run


def test_every_verb_explains_itself(sfumato: Run) -> None:
    verbs = sfumato("--help").stdout.split("Commands:")[1].split()
    for verb in ("txt2img", "img2img", "inpaint", "reconstruct", "encode", "replay", "info", "train", "demo", "doctor"):
        assert verb in verbs
        told = sfumato(verb, "--help")
        assert told.returncode == 0
        assert told.stdout.startswith(f"Usage: sfumato {verb} ")
    for group in ("models", "scenes"):
        assert sfumato(group, "--help").returncode == 0


EMBEDDED = ("drawn-world", "drawn-world")
WRONG_USAGE = {
    "no such verb": (("paint", "a tree"), "No such command 'paint'"),
    "no prompt": (("txt2img",), "Missing argument 'PROMPT"),
    "no such option": (("txt2img", "a", "--stepps", "3"), "--steps"),
    "not a number": (("txt2img", "a", "--steps", "many"), "'many' is not a whole number"),
    "steps out of range": (("txt2img", "a", "--steps", "0"), "steps is 0; it must be a whole number from 1 to 1000"),
    "guidance nan": (("txt2img", "a", "--guidance", "nan"), "guidance is nan; it must be a number from 0 to 100"),
    "size not a size": (("txt2img", "a", "--size", "big"), "--size is 'big'; it must be width x height"),
    "size out of range": (("txt2img", "a", "--size", "8x512"), "width is 8; it must be a whole number from 16 to 8192"),
    "grid not a grid": (("txt2img", "a", "--grid=wide"), "--grid is 'wide'; it must be rows x columns"),
    "noise unknown": (
        ("txt2img", "a", "--noise", "pink"),
        "noise is 'pink'; it must be one of keyed, sequential, philox",
    ),
    "NUL in a prompt file": (("txt2img", "@nul.txt"), "prompt holds a NUL character"),
    "an empty prompt file": (("txt2img", "@empty.txt"), "there is no prompt in @empty.txt"),
    "no prompt file": (("txt2img", "@none.txt"), "none.txt: No such file or directory"),
    "binary prompt file": (("txt2img", "@binary.txt"), "binary.txt is not UTF-8 text"),
    "no such part": (
        ("train", "vae", "x.toml"),
        "'vae' is not one of 'autoencoder', 'text',",
    ),
    "no scenes": (("scenes", "caption", "--count", "0"), "0 is not from 1 to"),
    "sampler unknown": (
        ("txt2img", "a", "--sampler", "magic", "-m", "none"),
        "sampler 'magic' is not known; known are",
    ),
    "spacing unknown": (("txt2img", "a", "--spacing", "wide", "-m", "none"), "spacing 'wide' is not known; known are"),
    "device unknown": (("txt2img", "a", "--device", "abacus", "-m", "none"), "device is 'abacus'; it must be one of"),
    "no verb of a group": (("models",), "Missing command"),
    "unwritable format": (("txt2img", "a", "-o", "a.gif"), "--output a.gif is neither a folder nor a picture"),
    "features of another kind": (("encode", "a", "--save", "a.bin"), "features are written as .safetensors"),
    "sheet of another kind": (("data", "check", ".", "--sheet", "a.txt"), "--sheet a.txt is no picture"),
    "no region": (("txt2img", "a", "--region", "left"), "a region is 'left'; write PLACE: PROMPT"),
    "no block": (("models", "merge", "a", "b", "-o", "c.safetensors", "--block", "ZZ"), "--block is 'ZZ'"),
    "no such block": (("models", "merge", *EMBEDDED, "-o", "c.safetensors", "--block", "ZZ=1"), "no block 'ZZ'"),
    "no address": (("txt2img", "a", "--server", "localhost:7860"), "begins with http:// or https://"),
    "words of a part": (("txt2img", "--freeu", "a cat"), "'--freeu': 'a cat' is neither on, nor a number"),
    "words of a second pass": (
        ("txt2img", "--hires", "a cat"),
        "'--hires': 'a cat' is neither so many times as large, such as 2, nor a size",
    ),
    "an axis twice": (
        ("grid", "a", "--x", "steps=1,2", "--x", "seed=1,2"),
        "--x is given twice, as steps=1,2 and seed=1,2",
    ),
    "a field on two axes": (("grid", "a", "--x", "steps=1,2", "--y", "steps=3"), "two axes have the field steps"),
    "upscale's strength without words": (("upscale", "photo.png", "--strength", "0.5"), "--strength without --prompt"),
    "upscale's window without words": (
        ("upscale", "photo.png", "--window", "64", "--steps", "3"),
        "--window and --steps without --prompt",
    ),
}
FAILURES = {
    "no start picture": (("img2img", "none.png", "a"), "none.png: there is no such file"),
    "start picture is none": (("img2img", "empty.txt", "a"), "empty.txt is not a picture"),
    "no mask": (("inpaint", "photo.png", "none.png", "a"), "none.png: there is no such file"),
    "output exists": (("txt2img", "a", "-o", "photo.png"), "photo.png exists"),
    "output in a folder that cannot be": (
        ("txt2img", "a", "--steps", "1", "-o", "/proc/none/"),
        "sfumato: /proc/none: No such file or directory. Check the path",
    ),
    "a folder for a picture": (("img2img", ".", "a"), "sfumato: . cannot be read as a picture: Is a directory."),
    "a folder for a file": (("train", "unet", "."), "sfumato: .: Is a directory. Check the path"),
    "merged model exists": (
        ("models", "merge", "none", "none", "-o", "photo.png"),
        "photo.png exists. Choose another name, or replace it with --overwrite",
    ),
    "output in a file": (("txt2img", "a", "-o", "empty.txt/"), "empty.txt is a file"),
    "no such model": (("txt2img", "a", "-m", "no/such-model"), "no model 'no/such-model'. Looked at: aliases in"),
    "model is a text": (("txt2img", "a", "-m", "empty.txt"), "empty.txt"),
    "no training file": (("train", "unet", "none.toml"), "There is no training configuration none.toml"),
    "picture is no picture": (("info", "empty.txt"), "empty.txt is not a picture"),
    "not ours to replay": (("replay", "photo.png"), "photo.png was not made by sfumato"),
    "no such alias": (("models", "remove", "none"), "no alias 'none'"),
    "folder is not empty": (("scenes", "render", "."), ". exists and is not an empty folder"),
}


@pytest.fixture(autouse=True)
def files(here: Path, photo: Path) -> None:
    (here / "nul.txt").write_bytes(b"a\0b\n")
    (here / "empty.txt").write_bytes(b"\n  \n")
    (here / "binary.txt").write_bytes(b"\xff\xfe\xfa")


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_wrong_usage_is_told_in_one_paragraph_with_exit_code_2(sfumato: Run, case: str) -> None:
    words, message = WRONG_USAGE[case]
    done = sfumato(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_told_in_one_paragraph_with_exit_code_1(sfumato: Run, here: Path, case: str) -> None:
    words, message = FAILURES[case]
    before = sorted(here.rglob("*"))
    done = sfumato(*words)
    assert done.returncode == 1
    assert message in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert sorted(here.rglob("*")) == before  # nothing was written on the way


def test_the_traceback_is_shown_only_when_asked_for(sfumato: Run) -> None:
    assert "Traceback" not in sfumato("info", "none.png").stderr
    assert "Traceback" in sfumato("info", "none.png", "-v").stderr
