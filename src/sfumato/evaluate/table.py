"""A report as tables, for a terminal and as Markdown."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from sfumato.evaluate.measure import TITLES
from sfumato.evaluate.report import Report
from sfumato.evaluate.rows import LEARNED, Figure, Row

WORDS = (
    "Percent right of what the captions say, 95 % Wilson intervals below. renders: the scenes themselves, the most "
    "that can be read; autoencoder: those encoded and decoded, the most that can be drawn; shuffled: the model's "
    "pictures against other captions, what is right by chance; empty: pictures of no words; start: pictures before the "
    "edit. Read by the learned reader, unless it says rules; agreement: how often both see the same."
)


@dataclass(frozen=True)
class Block:
    """A table: a title, the heads of its columns, and lines of cells; an empty line is a rule."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def blocks(report: Report) -> Iterator[Block]:
    """A table for each suite, then the distances, the seams, and the figures of the whole."""
    for suite in report.suites:
        yield _suite(suite, [row for row in report.rows if row.suite == suite])
    if report.distances:
        lines = [
            (f"{d.suite}: {d.source}", str(d.pictures), f"{1000 * d.kid:.2f}", f"{1000 * d.mmd:.2f}")
            for d in report.distances
        ]
        yield Block("distance from the renders, x 1000", ("pictures", "number", "KID", "MMD"), tuple(lines))
    if report.seams:
        seams = [(s.source, f"{s.across:.2f}", f"{s.beside:.2f}", f"{s.ratio:.2f}") for s in report.seams]
        yield Block("seams of inpainting, levels of 255", ("source", "across", "beside", "ratio"), tuple(seams))
    yield Block("of the whole", ("figure", "value"), tuple(_whole(report)))


def tables(report: Report) -> Iterator[Table]:
    """The blocks for a terminal."""
    for block in blocks(report):
        title = f"{report.model}: {block.title}"
        made = Table(title=title, title_justify="left", min_width=len(title))  # else a title is broken into lines
        for number, head in enumerate(block.heads):
            made.add_column(head, justify="right" if number else "left", no_wrap=not number)
        for line in block.lines:
            made.add_row(*line)
        yield made


def markdown(report: Report) -> str:
    """The blocks as Markdown."""
    parts = [f"# {report.model}\n\n{WORDS}\n"]
    for block in blocks(report):
        lines = [block.heads, ("---",) * len(block.heads), *block.lines]
        body = "\n".join(f"| {' | '.join(cell.replace(chr(10), ' (') for cell in line)} |" for line in _closed(lines))
        parts.append(f"## {block.title}\n\n{body}\n")
    return "\n".join(parts)


def _closed(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Intervals, which are on a line of their own in a terminal, in parentheses."""
    return [tuple(f"{cell})" if "\n" in cell else cell for cell in line) for line in lines]


def _suite(suite: str, rows: list[Row]) -> Block:
    heads = tuple(figure.attribute for figure in rows[0].figures)
    lines = [(_named(row), *(_cell(row, head) for head in heads)) for row in rows]
    return Block(f"{TITLES[suite]} ({rows[0].pictures})", ("pictures", *heads), tuple(lines))


def _named(row: Row) -> str:
    return row.source if row.reader == LEARNED else f"  {row.reader}"


def _cell(row: Row, attribute: str) -> str:
    figure = next((each for each in row.figures if each.attribute == attribute), None)
    return "" if figure is None else _percent(figure)


def _percent(figure: Figure) -> str:
    low, high = figure.interval
    return f"{100 * figure.share:.1f}\n{100 * low:.0f}–{100 * high:.0f}"


def _whole(report: Report) -> Iterator[tuple[str, str]]:
    yield "pictures drawn", str(report.drawn)
    yield "pictures a second", f"{report.speed:.2f}"
    if report.quality:
        yield "autoencoder, PSNR", f"{report.quality.psnr:.2f} dB"
        yield "autoencoder, SSIM", f"{report.quality.ssim:.4f}"
    if found := report.memorisation:
        yield "training scenes looked through", str(found.training.scenes)
        yield "to the nearest of them: drawn", f"{found.drawn:.4f}"
        yield "to the nearest of them: held-out renders", f"{found.renders:.4f}"
        yield "to the nearest of them: those through the autoencoder", f"{found.through:.4f}"
        yield "ratio (1 is usual, near 0 is copied)", f"{found.ratio:.2f}"
        yield "nearer than 99 % of held-out renders", f"{100 * found.suspicious:.1f} %"
