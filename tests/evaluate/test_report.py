"""Shares, intervals and rows, against published values and made by hand."""

import json
import math

import pytest
from PIL import Image

from sfumato.evaluate.report import Figure, Report, Sample, summarise, wilson
from sfumato.evaluate.sheet import contact_sheet
from sfumato.evaluate.table import COLUMNS, table
from sfumato.scenes.score import Mark, Score

RIGHT = Score((Mark("kind", "star", "star", True), Mark("colour", "red", "red", True)))
WRONG = Score((Mark("kind", "star", "moon", False), Mark("colour", "red", "red", True)))
UNSAID = Score((Mark("kind", "star", "star", True),))


def report() -> Report:
    scores = [RIGHT, WRONG, UNSAID]
    samples = tuple(
        Sample("one", "a red star, and a sentence that is longer than one line", 7 + i, Image.new("RGB", (32, 32)), s)
        for i, s in enumerate(scores)
    )
    rows = tuple(summarise("one", source, scores) for source in ("model", "renders", "autoencoder", "shuffled"))
    return Report("tiny", {"steps": 2}, rows, samples, 31.25, 0.5)


@pytest.mark.parametrize(
    ("right", "said", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (Wilson's score without continuity correction)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(right: int, said: int, low: float, high: float) -> None:
    assert wilson(right, said) == pytest.approx((low, high), abs=5e-5)  # four digits are printed there


def test_the_interval_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Figure("kind", 0, 0).share)


def test_the_interval_holds_the_share_and_is_symmetric_under_exchange() -> None:
    for said in (1, 10, 200):
        for right in {0, 1, said // 2, said}:
            low, high = wilson(right, said)
            assert 0 <= low <= right / said <= high <= 1
            assert wilson(said - right, said) == pytest.approx((1 - high, 1 - low))


def test_a_row_counts_what_was_said_and_strict_counts_pictures() -> None:
    row = summarise("one", "model", [RIGHT, WRONG, UNSAID])
    assert [(f.attribute, f.right, f.said) for f in row.figures] == [("colour", 2, 2), ("kind", 2, 3), ("strict", 2, 3)]
    assert row.pictures == 3
    assert row.figure("kind").share == pytest.approx(2 / 3)


def test_the_json_has_every_figure_and_every_wrong_mark() -> None:
    value = json.loads(report().to_json())
    assert value["model"] == "tiny"
    assert value["settings"] == {"steps": 2}
    assert value["autoencoder_psnr_db"] == 31.25
    assert [row["source"] for row in value["rows"]] == ["model", "renders", "autoencoder", "shuffled"]
    assert value["rows"][0]["figures"]["kind"] == {"right": 2, "said": 3, "share": 0.6667, "interval": [0.2077, 0.9385]}
    assert [sample["wrong"] for sample in value["samples"]] == [
        [],
        [{"attribute": "kind", "said": "star", "seen": "moon"}],
        [],
    ]
    assert [sample["seed"] for sample in value["samples"]] == [7, 8, 9]


def test_the_table_has_a_line_for_each_suite_and_each_row() -> None:
    made = table(report())
    assert [str(column.header) for column in made.columns] == ["pictures", *COLUMNS]
    assert list(made.columns[0].cells) == ["one object (3)", "  model", "  renders", "  autoencoder", "  shuffled"]
    assert list(made.columns[1 + COLUMNS.index("kind")].cells)[:2] == ["", "66.7\n21–94"]
    assert list(made.columns[1 + COLUMNS.index("place")].cells)[:2] == ["", ""]


def test_the_sheet_frames_right_pictures_in_green_and_wrong_ones_in_red() -> None:
    sheet = contact_sheet(report(), columns=3)
    reds, greens = ((190, 24, 32), (24, 120, 60))
    pixels = [colour for _, colour in sheet.getcolors(sheet.width * sheet.height)]
    assert reds in pixels
    assert greens in pixels
    all_right = report()
    only = Report("tiny", {}, all_right.rows, (all_right.samples[0],), 30.0, 1.0)
    assert reds not in [colour for _, colour in contact_sheet(only).getcolors(2**24)]


def test_the_sheet_shows_so_many_of_each_suite_at_most() -> None:
    assert contact_sheet(report(), per_suite=2, columns=1).height < contact_sheet(report(), columns=1).height
