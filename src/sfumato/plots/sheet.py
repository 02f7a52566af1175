"""A plot as one picture: cells in rows and columns, with the values beside and above them."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sfumato.errors import PictureError
from sfumato.images import MAX_SIDE
from sfumato.plots.axes import Axis

PAPER, INK, EMPTY, FADED = (255, 255, 255), (32, 32, 36), (232, 232, 236), (150, 150, 156)
GAP = 6
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Words:
    """Lines of one label, and the size that they take."""

    lines: list[str]
    width: int
    height: int


def plot_sheet(
    pictures: Mapping[tuple[int, int, int], Image.Image],
    x: Axis | None = None,
    y: Axis | None = None,
    z: Axis | None = None,
) -> Image.Image:
    """The pictures by their place along x, y and z: rows of y, columns of x, one block under another of z.

    Cells are as large as the largest picture; a place without one stays grey. Raises PictureError without a picture,
    and for a sheet that is larger than a picture can be.
    """
    if not pictures:
        raise PictureError("no cell of the plot was drawn, so there is nothing to show")
    cell_width = max(picture.width for picture in pictures.values())
    cell_height = max(picture.height for picture in pictures.values())
    font_size = max(13, min(cell_width // 14, 40))
    font = ImageFont.load_default(font_size)
    columns = [_words(label, cell_width, font) for label in (x.labels if x else ("",))]
    beside = [_words(label, max(cell_width * 2 // 3, 96), font) for label in (y.labels if y else ("",))]
    above = [_words(label, cell_width * len(columns), font) for label in (z.labels if z else ("",))]
    left = max(words.width for words in beside) + (2 * GAP if y else GAP)
    top = max(words.height for words in columns) + (2 * GAP if x else GAP)
    title = max(words.height for words in above) + (GAP if z else 0)
    row_height = max(cell_height, *(words.height for words in beside)) + GAP
    block = title + top + len(beside) * row_height
    size = (left + len(columns) * (cell_width + GAP), len(above) * block + GAP)
    if max(size) > 4 * MAX_SIDE:
        raise PictureError(f"the sheet would have {size[0]}x{size[1]} pixels; plot fewer values, or smaller pictures")
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for k, block_words in enumerate(above):
        start = k * block
        _write(draw, block_words, (left + (size[0] - left) // 2, start + GAP), font)
        for i, words in enumerate(columns):
            _write(draw, words, (left + i * (cell_width + GAP) + cell_width // 2, start + title + GAP), font)
        for j, words in enumerate(beside):
            upper = start + title + top + j * row_height
            _write(draw, words, (left // 2, upper + (row_height - GAP - words.height) // 2), font)
            for i in range(len(columns)):
                corner = (left + i * (cell_width + GAP), upper)
                _cell(sheet, pictures.get((i, j, k)), corner, (cell_width, cell_height))
    return sheet


def _cell(sheet: Image.Image, picture: Image.Image | None, corner: tuple[int, int], size: tuple[int, int]) -> None:
    if picture is None:
        picture = Image.new("RGB", size, EMPTY)
        middle = (size[0] // 2, size[1] // 2)
        ImageDraw.Draw(picture).text(middle, "not drawn", FADED, ImageFont.load_default(13), anchor="mm")
    sheet.paste(picture.convert("RGB"), corner)


def _words(label: str, width: int, font: Font) -> _Words:
    """A label broken into lines that are at most so many pixels wide."""
    if not label:
        return _Words([], 0, 0)
    letter = max(font.getlength(label) / len(label), 1.0)
    lines = textwrap.wrap(label, max(int(width / letter), 4)) or [label]
    while max(font.getlength(line) for line in lines) > width and max(map(len, lines)) > 4:
        lines = textwrap.wrap(label, max(map(len, lines)) - 1)  # this label has wide letters
    return _Words(lines, round(max(font.getlength(line) for line in lines)), len(lines) * _line(font))


def _line(font: Font) -> int:
    """Pixels from one line to the next."""
    _, top, _, bottom = font.getbbox("Ågj")
    return round((bottom - top) * 1.15)


def _write(draw: ImageDraw.ImageDraw, words: _Words, place: tuple[int, int], font: Font) -> None:
    """Lines centred at x, from y on."""
    for number, line in enumerate(words.lines):
        draw.text((place[0], place[1] + number * _line(font)), line, INK, font, anchor="ma")
