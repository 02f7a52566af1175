"""Names of pictures, prompts from files, and the options' own grammar, without a process."""

import io
from pathlib import Path

import pytest
import typer
from PIL import Image

from sfumato.cli.options import parse_grid, parse_size
from sfumato.cli.output import Gallery, slug
from sfumato.cli.prompts import read_prompts
from sfumato.errors import OutputError

PICTURE = Image.new("RGB", (4, 4), (10, 20, 30))


def test_default_names_never_collide(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = Gallery(str(here), total=3, stamp="20260101-000000")
    paths = [gallery.add(PICTURE, "1-tree", {}) for _ in range(3)]
    assert [path.name for path in paths] == [f"20260101-000000-1-tree{end}.png" for end in ("", "-2", "-3")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]


def test_several_pictures_under_one_name_are_numbered_and_refused_early(here: Path) -> None:
    gallery = Gallery(str(here / "tree.png"), total=2, told=False)
    assert [gallery.add(PICTURE, "x", {}).name for _ in range(2)] == ["tree.png", "tree-2.png"]
    (here / "tree.png").unlink()
    with pytest.raises(OutputError, match=r"tree-2\.png exists"):
        Gallery(str(here / "tree.png"), total=2)
    assert Gallery(str(here / "tree.png"), total=2, overwrite=True, told=False).add(PICTURE, "x", {}).exists()


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_a_picture_suffix_names_a_file(here: Path, suffix: str) -> None:
    path = Gallery(str(here / f"a.{suffix}"), total=1, told=False).add(PICTURE, "x", {})
    assert path == here / f"a.{suffix}"
    with Image.open(path) as written:
        assert written.size == (4, 4)


def test_a_folder_with_a_dot_needs_a_slash(here: Path) -> None:
    with pytest.raises(OutputError, match="needs a / at the end"):
        Gallery(str(here / "v1.5"), total=1)
    path = Gallery(f"{here / 'v1.5'}/", total=1, told=False).add(PICTURE, "x", {})
    assert path.parent == here / "v1.5"


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red house, on GREEN grass!", "a-red-house-on-green-grass"),
        ("../../etc/passwd", "etc-passwd"),
        ("crème brûlée", "creme-brulee"),
        ("家", "picture"),
        ("", "picture"),
        ("a" * 100, "a" * 40),
    ],
)
def test_a_slug_is_a_safe_part_of_a_file_name(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_prompts_come_from_words_files_and_stdin_in_order(here: Path) -> None:
    (here / "list.txt").write_text("\ufeffone\r\n\n  two  \n", encoding="utf-8")
    arguments = ["zero", f"@{here / 'list.txt'}", "-", "@@home"]
    assert read_prompts(arguments, io.StringIO("three\nfour")) == ("zero", "one", "two", "three", "four", "@home")


def test_an_empty_word_is_a_prompt_and_an_empty_file_is_none(here: Path) -> None:
    assert read_prompts([""]) == ("",)


def test_sizes_and_grids() -> None:
    assert (parse_size("640x480"), parse_size("1×2"), parse_size(None)) == ((640, 480), (1, 2), None)
    assert (parse_grid("2x3", 6), parse_grid("auto", 6), parse_grid(None, 6)) == (3, 0, None)
    with pytest.raises(typer.BadParameter, match="room for 4 pictures; 5 are asked for"):
        parse_grid("2x2", 5)
    for wrong in ("0x5", "x", "640", "640x480x3", "-1x2"):
        with pytest.raises(typer.BadParameter):
            parse_size(wrong)
