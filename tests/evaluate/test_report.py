"""A report as JSON, as tables and as sheets."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from sfumato.errors import OutputError
from sfumato.evaluate.distances import Distance
from sfumato.evaluate.memorisation import Memorisation, Neighbour, Training
from sfumato.evaluate.report import Quality, Report
from sfumato.evaluate.rows import Row, Sample, agreement, summarise
from sfumato.evaluate.seams import Seam
from sfumato.evaluate.sheet import suite_sheet
from sfumato.evaluate.table import blocks, markdown, tables
from sfumato.evaluate.writing import write
from sfumato.scenes.score import Mark, Score

RIGHT = Score((Mark("kind", "star", "star", True), Mark("colour", "red", "red", True)))
WRONG = Score((Mark("kind", "star", "moon", False), Mark("colour", "red", "red", True)))
UNSAID = Score((Mark("kind", "star", "star", True),))
SCORES = [RIGHT, WRONG, UNSAID]


def rows(suite: str, source: str) -> tuple[Row, ...]:
    return (
        summarise(suite, source, SCORES),
        summarise(suite, source, SCORES, "rules"),
        agreement(suite, source, SCORES, SCORES),
    )


def report() -> Report:
    picture = Image.new("RGB", (32, 32))
    samples = [
        Sample("one", "a red star, and a sentence that is longer than one line", 7 + i, picture, s)
        for i, s in enumerate(SCORES)
    ]
    edits = [Sample("inpainting", "a red star", i, picture, s, before=picture) for i, s in enumerate(SCORES)]
    return Report(
        model="tiny",
        settings={"steps": 2},
        rows=(*rows("one", "model"), *rows("one", "renders"), *rows("inpainting", "model")),
        samples=(*samples, *edits),
        distances=(Distance("one", "model", 3, 0.0125, -0.001),),
        seams=(Seam("model", 3, 6.0, 3.0),),
        quality=Quality(3, math.inf, 1.0),
        memorisation=Memorisation(Training(9), 3, 0.1, 0.3, 0.2, 0.0, (Neighbour(picture, 4, 0.05),)),
        drawn=6,
        seconds=3.0,
    )


def test_the_json_has_every_figure_and_every_wrong_mark() -> None:
    value = json.loads(report().to_json())
    assert value["model"] == "tiny"
    assert value["settings"] == {"steps": 2}
    assert value["pictures_per_second"] == 2
    assert value["autoencoder"] == {"pictures": 3, "psnr_db": None, "ssim": 1}  # infinite, which JSON cannot say
    first = value["rows"][0]
    assert (first["suite"], first["source"], first["reader"]) == ("one", "model", "learned")
    assert first["figures"]["kind"] == {"right": 2, "said": 3, "share": 0.6667, "interval": [0.2077, 0.9385]}
    assert [sample["wrong"] for sample in value["samples"][:3]] == [
        [],
        [{"attribute": "kind", "said": "star", "seen": "moon"}],
        [],
    ]
    assert [sample["seed"] for sample in value["samples"][:3]] == [7, 8, 9]
    assert value["distances"] == [{"suite": "one", "source": "model", "pictures": 3, "kid": 0.0125, "mmd": -0.001}]
    assert value["memorisation"]["training"] == {"scenes": 9, "seed": 33, "counts": [0.7, 0.3]}
    assert value["memorisation"]["ratio"] == 0.5
    assert value["seams"][0]["ratio"] == 2


def test_there_is_a_table_for_each_suite_with_a_line_for_each_row() -> None:
    first, second, *others = blocks(report())
    assert first.title == "one object (3)"
    assert first.heads == ("pictures", "colour", "kind", "strict")
    assert [line[0] for line in first.lines] == ["model", "  rules", "  agreement", "renders", "  rules", "  agreement"]
    assert first.lines[0][2] == "66.7\n21–94"
    assert second.title == "a thing in a free place (3)"
    assert [other.heads[0] for other in others] == ["pictures", "source", "figure"]


def test_terminal_and_markdown_have_the_same_blocks() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for table in tables(report()):
        console.print(table)
    shown, written = console.export_text(), markdown(report())
    for block in blocks(report()):
        assert f"tiny: {block.title}" in shown
        assert f"## {block.title}" in written
    assert "66.7 (21–94)" in written
    widths = {line.count("|") for line in written.split("## ")[1].splitlines() if line.startswith("|")}
    assert widths == {5}


def test_the_sheet_frames_right_pictures_in_green_and_wrong_ones_in_red() -> None:
    reds, greens = ((190, 24, 32), (24, 120, 60))

    def colours(sheet: Image.Image) -> set[object]:
        return {colour for _, colour in sheet.getcolors(2**24)}

    assert {reds, greens} <= colours(suite_sheet(report(), "one", columns=3))
    assert reds not in colours(suite_sheet(report(), "one", most=1))


def test_a_sheet_shows_so_many_at_most_and_edits_beside_what_was_before() -> None:
    assert suite_sheet(report(), "one", 2, 1).height < suite_sheet(report(), "one", 3, 1).height
    assert suite_sheet(report(), "inpainting", 1, 2).width > suite_sheet(report(), "one", 1, 1).width


def test_a_report_is_written_into_a_new_folder_and_nowhere_else(tmp_path: Path) -> None:
    paths = write(report(), tmp_path / "new")
    assert [path.name for path in paths] == [
        "report.json",
        "table.md",
        "sheet-one.png",
        "sheet-inpainting.png",
        "sheet-memorisation.png",
    ]
    assert all(path.stat().st_size for path in paths)
    with pytest.raises(OutputError, match="nothing is overwritten"):
        write(report(), tmp_path / "new")


def test_without_prompts_there_are_no_figures_of_the_whole() -> None:
    only = replace(report(), quality=None, memorisation=None, distances=(), seams=())
    value = json.loads(only.to_json())
    assert (value["autoencoder"], value["memorisation"], value["distances"]) == (None, None, [])
    assert [line[0] for line in list(blocks(only))[-1].lines] == ["pictures drawn", "pictures a second"]
