"""A report as files in a new folder."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from sfumato.errors import OutputError, reason
from sfumato.evaluate.report import Report
from sfumato.evaluate.sheet import neighbour_sheet, suite_sheet
from sfumato.evaluate.table import markdown


def write(report: Report, folder: Path) -> list[Path]:
    """Writes report.json, table.md and a sheet of each suite and of the nearest training scenes; their paths.

    Raises OutputError if the folder exists or cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made: {reason(error)}. Name a new folder; nothing is overwritten."
        ) from error
    texts = {"report.json": report.to_json() + "\n", "table.md": markdown(report)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    paths = [folder / name for name in texts]
    for name, sheet in _sheets(report):
        paths.append(folder / f"sheet-{name}.png")
        sheet.save(paths[-1])
    return paths


def _sheets(report: Report) -> Iterator[tuple[str, Image.Image]]:
    for suite in report.suites:
        yield suite, suite_sheet(report, suite)
    if report.memorisation:
        yield "memorisation", neighbour_sheet(report, report.memorisation)
