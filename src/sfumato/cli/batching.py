"""batch: many requests from one table; what is made already is not made again."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.batch.rows import Row, read_rows
from sfumato.cli.drawing import request_of
from sfumato.cli.options import Drawing, Voice, Which, grouped
from sfumato.cli.output import slug, write_document, write_line
from sfumato.cli.progress import Bar, complain, note, progress
from sfumato.cli.remote import Painter
from sfumato.errors import SfumatoError
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.client import Client
    from sfumato.engine import Engine

app = typer.Typer()

Report = dict[str, Any]


@app.command("batch")
@grouped
def batch(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .csv, .tsv, .jsonl or .json of requests.", show_default=False)
    ],
    which: Which,
    drawing: Drawing,
    machine: Painter,
    voice: Voice,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the pictures go; outputs/ by default.")
    ] = Path("outputs"),
) -> None:
    """Draw the requests of a table.

    Columns, or the keys of objects, are fields of a request; options give those that a row leaves out. Run it again
    after it was interrupted: pictures that are there and are what their row asks for are kept. Rows that fail are told
    at the end, and do not stop the others.
    """
    base = request_of([""], which, drawing, {}).to_dict()
    rows = read_rows(file, base)
    started = time.monotonic()
    reports: list[Report] = []
    try:
        with machine.painter() as painter, progress() as bar:
            for row in rows:
                bar(f"row {row.number} of {len(rows)}")
                reports.append(_run(painter, row, output, bar, told=not voice.json))
    finally:
        _tell(rows, reports, time.monotonic() - started, json=voice.json)
    if any(report["status"] == "failed" for report in reports):
        raise typer.Exit(1)


def _run(painter: "Engine | Client", row: Row, folder: Path, bar: Bar, *, told: bool) -> Report:
    """Draw one row, unless it is there, and say what became of it."""
    report: Report = {"row": row.number, "status": "failed", "pictures": [], "error": row.error}
    if row.request is None:
        return report
    from sfumato.batch.made import difference

    paths = [_path(folder, row, index) for index in range(row.request.total)]
    report["key"] = row.key
    wrong = [(path, difference(path, row.request, index)) for index, path in enumerate(paths) if path.exists()]
    if len(wrong) == len(paths) and not any(why for _, why in wrong):
        return {**report, "status": "kept", "pictures": [str(path) for path in paths]}
    for path, why in wrong:
        if why is not None:
            note(f"{path} {why}; it is made again")
    try:
        for path in _draw(painter, row, row.request, folder, bar):
            report["pictures"].append(str(path))
            if told:
                write_line(path)
    except (SfumatoError, MemoryError) as error:
        return {**report, "error": str(error) or "the memory is not enough"}
    return {**report, "status": "made"}


def _draw(painter: "Engine | Client", row: Row, request: Request, folder: Path, bar: Bar) -> Iterator[Path]:
    """The files of a row's pictures, each written when it is finished."""
    from sfumato.events import Finished, Progress
    from sfumato.metadata import save

    folder.mkdir(parents=True, exist_ok=True)
    for event in painter.run(request):
        if isinstance(event, Progress):
            bar(f"row {row.number}", event.step, event.steps)
        elif isinstance(event, Finished):
            yield save(event.picture, _path(folder, row, event.index), overwrite=True)


def _path(folder: Path, row: Row, index: int) -> Path:
    """The file of one picture of a row: words for people, and the key for the next run."""
    assert row.request is not None
    prompt = row.request.prompts[index // row.request.count]
    number = f"-{index + 1}" if row.request.total > 1 else ""
    return folder / f"{slug(prompt)}-{row.key[:12]}{number}.png"


def _tell(rows: list[Row], reports: list[Report], seconds: float, *, json: bool) -> None:
    """Say what became of the rows, those that failed last."""
    counts = {status: sum(each["status"] == status for each in reports) for status in ("made", "kept", "failed")}
    if json:
        write_document({"rows": reports, **counts, "left": len(rows) - len(reports), "seconds": round(seconds, 3)})
    left = f", {len(rows) - len(reports)} left" if len(reports) < len(rows) else ""
    note(f"{counts['made']} rows made, {counts['kept']} kept, {counts['failed']} failed{left} in {seconds:.1f} s")
    for report in reports:
        if report["status"] == "failed":
            complain(f"row {report['row']}: {report['error']}")
