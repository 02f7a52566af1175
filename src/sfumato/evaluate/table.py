"""A report as a table for a terminal."""

from itertools import groupby

from rich.table import Table

from sfumato.evaluate.report import Figure, Report, Row
from sfumato.evaluate.suites import SUITES
from sfumato.scenes.score import ATTRIBUTES

COLUMNS = (*ATTRIBUTES, "strict")
CAPTION = (
    "Percent of what the captions say that is right, 95 % Wilson intervals below. renders: the scenes themselves, the "
    "most that can be read; autoencoder: those encoded and decoded, the most that can be drawn; shuffled: the model's "
    "pictures against other captions, what is right by chance. Autoencoder {psnr:.1f} dB; {seconds:.2f} s a picture."
)


def table(report: Report) -> Table:
    """A block of lines for each suite; each line has percentages right of what was said, and intervals below them."""
    caption = CAPTION.format(psnr=report.autoencoder_psnr, seconds=report.seconds)
    result = Table(title=f"{report.model} on held-out prompts", caption=caption, caption_justify="left")
    result.add_column("pictures", no_wrap=True)
    for name in COLUMNS:
        result.add_column(name, justify="right")
    for suite, rows in groupby(report.rows, key=lambda row: row.suite):
        lines = list(rows)
        result.add_row(f"{SUITES[suite].title} ({lines[0].pictures})", style="bold")
        for row in lines:
            result.add_row(f"  {row.source}", *_cells(row), end_section=row is lines[-1])
    return result


def _cells(row: Row) -> list[str]:
    figures = {figure.attribute: figure for figure in row.figures}
    return [_cell(figures[name]) if name in figures else "" for name in COLUMNS]


def _cell(figure: Figure) -> str:
    low, high = figure.interval
    return f"{100 * figure.share:.1f}\n{100 * low:.0f}–{100 * high:.0f}"
