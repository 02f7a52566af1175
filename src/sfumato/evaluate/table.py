"""A report as a table for a terminal."""

from rich.table import Table

from sfumato.evaluate.report import Figure, Report, Row
from sfumato.evaluate.suites import SUITES
from sfumato.scenes.score import ATTRIBUTES

COLUMNS = (*ATTRIBUTES, "strict")
SOURCES = {
    "model": "the model",
    "renders": "true renders",
    "autoencoder": "renders through the autoencoder",
    "shuffled": "the model, shuffled captions",
}


def table(report: Report) -> Table:
    """One line for each row: percentages right of what was said, and their 95 % intervals below."""
    caption = (
        f"% of what the captions say that is right, 95 % Wilson intervals below. "
        f"Autoencoder {report.autoencoder_psnr:.1f} dB. {report.seconds:.2f} s a picture."
    )
    result = Table(title=f"{report.model} on held-out prompts", caption=caption, caption_justify="left")
    result.add_column("suite")
    result.add_column("pictures")
    for name in COLUMNS:
        result.add_column(name, justify="right")
    for index, row in enumerate(report.rows):
        ends = index + 1 == len(report.rows) or report.rows[index + 1].suite != row.suite
        first = row.source == "model"
        title = f"{SUITES[row.suite].title}\n({row.pictures})" if first else ""
        result.add_row(title, SOURCES[row.source], *_cells(row), style="bold" if first else None, end_section=ends)
    return result


def _cells(row: Row) -> list[str]:
    figures = {figure.attribute: figure for figure in row.figures}
    return [_cell(figures[name]) if name in figures else "" for name in COLUMNS]


def _cell(figure: Figure) -> str:
    low, high = figure.interval
    return f"{100 * figure.share:.1f}\n{100 * low:.0f}–{100 * high:.0f}"
