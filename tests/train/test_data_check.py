"""The report on a set: what it counts and names, and the verb that prints it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from set_maker import RED, picture
from typer.testing import CliRunner, Result

from sfumato.cli.app import app
from sfumato.errors import ConfigError, DataError, OutputError
from sfumato.train.data import read_source
from sfumato.train.data.captioned import captioned_sheet
from sfumato.train.data.report import examine


def check(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pictures: two of the same bytes, one a scaled copy, one broken, one wide; words of many lengths."""
    for number in range(18):
        cells = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        smooth = Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC)
        smooth.save(tmp_path / f"{number:02d}.png")
        (tmp_path / f"{number:02d}.txt").write_text("a red house, the sky")
    (tmp_path / "03.png").write_bytes((tmp_path / "02.png").read_bytes())
    with Image.open(tmp_path / "05.png") as original:
        original.resize((200, 200)).save(tmp_path / "18.png")
    (tmp_path / "18.txt").write_text("house " * 80)
    picture(tmp_path / "19.png", RED, (256, 64), "wide")
    (tmp_path / "07.png").write_bytes(b"\x89PNG nothing")
    return tmp_path


def test_a_report_counts_and_names_everything(folder: Path) -> None:
    report, samples = examine(read_source(str(folder)), 128)
    assert (report.pictures, report.samples, samples.length) == (19, 19, 19)
    assert [each.name for each in report.unreadable] == ["07.png"]
    assert (report.width.least, report.width.middle, report.width.most) == (64, 64, 256)
    assert dict(report.ratios) == {**dict.fromkeys(dict(report.ratios), 0), "0.95 to 1.05": 18, "from 2": 1}
    assert report.buckets == [(128, 128, 18), (256, 64, 1)]
    assert report.enlarged == 17
    assert report.same == [["02.png", "03.png"]]
    assert report.alike == [("05.png", "18.png")]
    said = report.captions
    assert (said.count, said.missing, said.too_long, said.are_tags) == (20, [], 1, False)
    assert said.common[0] == ("house", 98)
    assert dict(said.common)["sky"] == 18
    assert "the" not in dict(said.common)
    assert said.tokens.most == 80
    assert report.problems == []


def test_what_training_would_refuse_is_a_problem(folder: Path) -> None:
    (folder / "08.png").write_bytes(b"nothing")
    (folder / "09.txt").unlink()
    report, _ = examine(read_source(str(folder)), 128)
    assert "2 of 20 pictures" in report.problems[0]
    assert report.problems[1] == "1 pictures have no caption, first '09.png'."


def test_captions_that_are_lists_of_tags(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", text="1girl, long hair, Blue Eyes, solo")
    picture(tmp_path / "b.png", text="1girl, hat, blue eyes, outdoors")
    said = examine(read_source(str(tmp_path)), 64)[0].captions
    assert said.are_tags
    assert dict(said.common)["blue eyes"] == 2


def test_a_set_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"1 of 1 pictures .* First a\.png: the picture|1 of 1 pictures"):
        examine(read_source(str(tmp_path)), 64)


def test_the_sheet_shows_every_picture_once_when_there_are_few(folder: Path) -> None:
    _, samples = examine(read_source(str(folder)), 128)
    sheet = captioned_sheet(samples, columns=5)
    row = 128 + 6 * 14 + 12
    assert sheet.width == 12 + 5 * (192 + 12)  # the widest bucket has 256 pixels
    assert sheet.height == 12 + 4 * (row + 64)
    assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 1000


def test_the_verb_prints_a_table(folder: Path, tmp_path: Path) -> None:
    done = check(folder, "--size", 128)
    assert done.exit_code == 0, done.output
    for told in (
        "folder with captions beside the pictures",
        "02.png = 03.png",
        "05.png ~ 18.png",
        "07.png",
        "256x64: 1",
    ):
        assert told in done.stdout


def test_the_verb_prints_one_json_document_and_writes_a_sheet(folder: Path) -> None:
    target = folder.parent / "sheets/sheet.png"
    done = check(folder, "--size", 128, "--json", "--sheet", target)
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["pictures"], told["unreadable"][0]["name"], told["sheet"]) == (19, "07.png", str(target))
    assert told["captions"]["tokens"] == {"least": 1, "middle": 6, "most": 80}
    with Image.open(target) as sheet:
        assert sheet.format == "PNG"
    again = check(folder, "--sheet", target)
    assert isinstance(again.exception, OutputError)


def test_a_set_that_training_would_refuse_fails(folder: Path) -> None:
    (folder / "09.txt").unlink()
    done = check(folder, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problems"] == ["1 pictures have no caption, first '09.png'."]
    assert "refused" in check(folder).stdout


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--size", "97"), "97 is not a multiple of 8"),
        (("--size", "large"), "'large' is not a whole number"),
        (("--sise", "64"), "--sise"),
    ],
)
def test_wrong_usage(folder: Path, words: tuple[str, ...], wrong: str) -> None:
    done = check(folder, *words)
    assert done.exit_code == 2
    assert wrong in done.stderr


def test_wrong_input_is_an_error_of_ours(folder: Path) -> None:
    assert isinstance(check(folder / "none").exception, DataError)
    assert isinstance(check(folder, "--sheet", "a.gif").exception, OutputError)
    (folder / "set.toml").write_text("[[datasets]]\ncolour = 3\n")
    assert isinstance(check(folder / "set.toml").exception, ConfigError)
