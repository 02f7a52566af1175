"""A contact sheet for people: each picture with its prompt, and in red what the reader found wrong."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from sfumato.evaluate.report import Report, Sample
from sfumato.evaluate.suites import SUITES

CELL = 160  # pixels of a picture's side on the sheet
GAP = 12
LINE = 14  # pixels of a line of text
TITLE = 30
PROMPT_LINES, WRONG_LINES = 4, 3
TEXT_WIDTH = 25  # letters of a line under a picture
PAPER, INK, WRONG, RIGHT = (255, 255, 255), (40, 40, 44), (190, 24, 32), (24, 120, 60)


def contact_sheet(report: Report, per_suite: int = 32, columns: int = 8) -> Image.Image:
    """The first `per_suite` pictures of each suite in the report, in rows of `columns`."""
    suites = list(dict.fromkeys(sample.suite for sample in report.samples))
    groups = {name: [s for s in report.samples if s.suite == name][:per_suite] for name in suites}
    row_height = CELL + (PROMPT_LINES + WRONG_LINES) * LINE + GAP
    rows = {name: -(-len(group) // columns) for name, group in groups.items()}
    height = sum(TITLE + count * row_height for count in rows.values()) + GAP
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for name, group in groups.items():
        strict = report.row(name).figure("strict")
        title = f"{report.model}: {SUITES[name].title}, {strict.right} of {strict.said} right in everything"
        draw.text((GAP, top), title, INK, ImageFont.load_default(16))
        for index, sample in enumerate(group):
            row, column = divmod(index, columns)
            _paste(sheet, draw, sample, (GAP + column * (CELL + GAP), top + TITLE + row * row_height))
        top += TITLE + rows[name] * row_height
    return sheet


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, sample: Sample, corner: tuple[int, int]) -> None:
    x, y = corner
    picture = sample.picture.convert("RGB")
    picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    if max(picture.size) < CELL:
        scale = CELL / max(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
        )
    sheet.paste(picture, corner)
    wrong = sample.score.wrong
    draw.rectangle((x - 2, y - 2, x + CELL + 1, y + CELL + 1), outline=WRONG if wrong else RIGHT, width=2)
    font = ImageFont.load_default(12)
    y += CELL + 3
    for line in _fitted([sample.prompt], PROMPT_LINES):
        draw.text((x, y), line, INK, font)
        y += LINE
    for line in _fitted([f"{m.said}: saw {m.seen or 'none'}" for m in wrong], WRONG_LINES):
        draw.text((x, y), line, WRONG, font)
        y += LINE


def _fitted(texts: Sequence[str], most: int) -> list[str]:
    """The texts broken into lines; what does not fit in `most` of them ends in an ellipsis."""
    lines = [line for text in texts for line in textwrap.wrap(text, TEXT_WIDTH)]
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][: TEXT_WIDTH - 2] + " …"]
