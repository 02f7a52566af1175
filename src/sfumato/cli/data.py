"""data: what a set of pictures with captions holds, before anybody trains on it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from sfumato.cli.options import Voice, grouped, whole
from sfumato.cli.output import SUFFIXES, write_document, write_line
from sfumato.cli.progress import progress
from sfumato.errors import OutputError, OutputFormatError

if TYPE_CHECKING:
    from sfumato.train.data.report import Range, Report

app = typer.Typer(help="Pictures with captions, to train on.")
LISTED = 10  # names of a kind on the terminal; --json has all


def _size(text: str) -> int:
    value = whole(text)
    if value % 8 or not 16 <= value <= 8192:
        raise typer.BadParameter(f"{value} is not a multiple of 8 from 16 to 8192.")
    return value


@app.command("check")
@grouped
def check(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Folder, dataset TOML, shards or tables.", show_default=False)
    ],
    voice: Voice,
    size: Annotated[int, typer.Option(parser=_size, metavar="PIXELS", help="Side of a square to train on.")] = 512,
    caption_column: Annotated[str, typer.Option(metavar="NAME", help="Column or field of the captions.")] = "text",
    image_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of the pictures, or of their names; found by itself.")
    ] = "",
    sheet: Annotated[Path | None, typer.Option(metavar="FILE", help="Also a contact sheet with captions.")] = None,
) -> None:
    """Look at a set of pictures as training would.

    Tells its kind, sizes, buckets, captions, duplicates and broken files. Fails where training would refuse it.
    """
    if sheet is not None:
        _check_sheet(sheet)
    from sfumato.train.data import read_source
    from sfumato.train.data.report import examine

    source = read_source(path, caption_column, image_column)
    with progress() as bar:
        report, samples = examine(source, size, progressed=lambda done, total: bar("looking", done, total))
    if sheet is not None:
        from sfumato.train.data.captioned import captioned_sheet

        sheet.parent.mkdir(parents=True, exist_ok=True)
        captioned_sheet(samples).save(sheet)
    if voice.json:
        from dataclasses import asdict

        write_document({**asdict(report), "sheet": None if sheet is None else str(sheet)})
    else:
        _print(report, sys.stdout if sheet is None else sys.stderr)
        if sheet is not None:
            write_line(sheet)
    if report.problems:
        raise typer.Exit(1)


def _check_sheet(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise OutputFormatError(f"--sheet {path} is no picture; pictures end in {', '.join(SUFFIXES)}.")
    if path.exists():
        raise OutputError(f"{path} exists. Choose another name; nothing is overwritten.")


def _print(report: "Report", file: TextIO) -> None:
    """The report as a table on stdout; on stderr where a file was made, whose path alone is there."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(report.where), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, told in _rows(report):
        table.add_row(Text(name), Text(told, style="bold red" if name == "refused" else ""))
    Console(file=file).print(table)


def _rows(report: "Report") -> list[tuple[str, str]]:
    said = report.captions
    words = ", ".join(f"{word} {count}" for word, count in said.common)
    rows = [
        ("kind", report.kind),
        ("pictures", f"{report.pictures}, {report.samples} samples with repeats and mirrored ones"),
        ("width", _range(report.width)),
        ("height", _range(report.height)),
        ("width : height", "\n".join(f"{name}: {count}" for name, count in report.ratios if count)),
        ("buckets", "\n".join(f"{width}x{height}: {count}" for width, height, count in report.buckets)),
        ("enlarged", f"{report.enlarged} pictures are smaller than their bucket"),
        ("captions", f"{said.count}; {len(said.missing)} pictures without one{_listed(said.missing)}"),
        ("tokens", f"{_range(said.tokens)}; {said.too_long} captions longer than 75"),
        ("common tags" if said.are_tags else "common words", words),
        ("same bytes", f"groups: {len(report.same)}{_listed([' = '.join(group) for group in report.same])}"),
        ("look alike", f"pairs: {len(report.alike)}{_listed([' ~ '.join(pair) for pair in report.alike])}"),
        (
            "unreadable",
            f"pictures: {len(report.unreadable)}{_listed([f'{u.name}: {u.reason}' for u in report.unreadable])}",
        ),
    ]
    return [*rows, *(("note", note) for note in report.notes), *(("refused", problem) for problem in report.problems)]


def _listed(names: Any) -> str:
    more = [f"... and {len(names) - LISTED} more; --json has all"] if len(names) > LISTED else []
    return "".join(f"\n{name}" for name in [*names[:LISTED], *more])


def _range(values: "Range") -> str:
    return f"{values.least:g} to {values.most:g}, middle {values.middle:g}"
