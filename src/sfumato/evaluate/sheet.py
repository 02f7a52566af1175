"""Contact sheets for people: each picture with its prompt, and in red what the reader found wrong."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from sfumato.evaluate.measure import TITLES
from sfumato.evaluate.memorisation import Memorisation, neighbour_render
from sfumato.evaluate.report import Report
from sfumato.evaluate.rows import Sample
from sfumato.scenes.score import Mark, Score

CELL = 160  # pixels of a picture's side on the sheet
GAP = 12
BETWEEN = 4  # pixels between a picture and the one before it
LINE = 14  # pixels of a line of text
TITLE = 30
PROMPT_LINES, WRONG_LINES = 4, 3
LETTER = 6.4  # pixels of a letter, about
PAPER, INK, WRONG, RIGHT = (255, 255, 255), (40, 40, 44), (190, 24, 32), (24, 120, 60)


def suite_sheet(report: Report, suite: str, most: int = 32, columns: int = 8) -> Image.Image:
    """The first `most` pictures of a suite, in rows of `columns`; of edits, the picture before them too."""
    samples = [sample for sample in report.samples if sample.suite == suite][:most]
    strict = [report.row(suite, source).figure("strict") for source in dict.fromkeys(s.source for s in samples)]
    right, said = sum(each.right for each in strict), sum(each.said for each in strict)
    title = f"{report.model}: {TITLES[suite]}, {right} of {said} right in everything"
    return _sheet(title, samples, columns // 2 if samples[0].before else columns)


def neighbour_sheet(report: Report, found: Memorisation, columns: int = 4) -> Image.Image:
    """The pictures that are nearest to a training scene, each beside that scene."""
    nothing = Score(())
    pairs = [
        Sample(
            "memorisation",
            f"distance {each.distance:.3f} from training scene {each.scene}",
            0,
            neighbour_render(found, each),
            nothing,
            before=each.picture,
        )
        for each in found.nearest
    ]
    title = (
        f"{report.model}: drawn, and the nearest of {found.training.scenes} training scenes (ratio {found.ratio:.2f})"
    )
    return _sheet(title, pairs, columns)


def _sheet(title: str, samples: Sequence[Sample], columns: int) -> Image.Image:
    wide = 2 * CELL + BETWEEN if samples and samples[0].before else CELL
    words = [_words(sample, wide) for sample in samples]
    height = CELL + max((len(lines) for lines in words), default=0) * LINE + 2 * GAP
    rows = -(-len(samples) // columns)
    sheet = Image.new("RGB", (GAP + columns * (wide + GAP), 2 * GAP + TITLE + rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(16))
    for index, sample in enumerate(samples):
        row, column = divmod(index, columns)
        _paste(sheet, draw, sample, words[index], (GAP + column * (wide + GAP), GAP + TITLE + row * height))
    return sheet


Words = list[tuple[str, tuple[int, int, int]]]
"""Lines under a picture, each with its colour."""


def _words(sample: Sample, wide: int) -> Words:
    """The prompt, and what the reader found wrong."""
    wrong = [_told(mark) for mark in sample.score.wrong]
    return [
        *((line, INK) for line in _lines([sample.prompt], PROMPT_LINES, wide)),
        *((line, WRONG) for line in _lines(wrong, WRONG_LINES, wide)),
    ]


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, sample: Sample, words: Words, corner: tuple[int, int]
) -> None:
    x, y = corner
    pictures = [each for each in (sample.before, sample.picture) if each is not None]
    for number, picture in enumerate(pictures):
        sheet.paste(_fitted(picture), (x + number * (CELL + BETWEEN), y))
    wide = len(pictures) * (CELL + BETWEEN) - BETWEEN
    frame = WRONG if sample.score.wrong else RIGHT
    draw.rectangle((x - 2, y - 2, x + wide + 1, y + CELL + 1), outline=frame, width=2)
    font = ImageFont.load_default(12)
    y += CELL + 3
    for line, colour in words:
        draw.text((x, y), line, colour, font)
        y += LINE


def _told(mark: Mark) -> str:
    return f"{mark.said}: saw {mark.seen or 'none'}"


def _fitted(picture: Image.Image) -> Image.Image:
    scale = CELL / max(picture.size)
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return picture.convert("RGB").resize((round(picture.width * scale), round(picture.height * scale)), how)


def _lines(texts: Sequence[str], most: int, wide: int) -> list[str]:
    """The texts broken into lines; what does not fit in `most` of them ends in an ellipsis."""
    letters = int(wide / LETTER)
    lines = [line for text in texts for line in textwrap.wrap(text, letters)]
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][: letters - 2] + " …"]
