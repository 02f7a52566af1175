"""A contact sheet of a set: pictures as training sees them, each with its name and its words."""

import textwrap

from PIL import Image, ImageDraw, ImageFont

from sfumato.train.data.pictures import PictureSet
from sfumato.train.data.pixels import show

CELL, LEAST, GAP, LINE = 192, 120, 12, 14  # pixels: of a cell's side, between cells, of a line of text
LETTER, LINES = 6, 5  # pixels of a letter's width; lines of words under a picture
PAPER, INK, GREY = (255, 255, 255), (40, 40, 44), (130, 130, 136)


def captioned_sheet(samples: PictureSet, count: int = 40, columns: int = 8) -> Image.Image:
    """`count` samples, evenly spaced through the set, cut as their bucket cuts them, over their caption at draw 0."""
    count = min(count, samples.length)
    indices = [samples.length * at // count for at in range(count)]
    columns = min(columns, count)
    cell = max(LEAST, min(CELL, max(max(samples.fit(index).size) for index in indices)))
    letters = cell // LETTER
    height = cell + (LINES + 1) * LINE + GAP
    sheet = Image.new("RGB", (GAP + columns * (cell + GAP), GAP + -(-count // columns) * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for at, index in enumerate(indices):
        row, column = divmod(at, columns)
        x, y = GAP + column * (cell + GAP), GAP + row * height
        picture = show(samples.record(index), samples.view(index, 0))
        picture.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x + (cell - picture.width) // 2, y + cell - picture.height))
        (text,) = samples.captions([index], [0])
        name = samples.record(index).name
        draw.text((x, y + cell + 2), name if len(name) <= letters else f"… {name[2 - letters :]}", GREY, font)
        lines = textwrap.wrap(text, letters, max_lines=LINES, placeholder=" …") or ["(no words)"]
        for number, line in enumerate(lines, 1):
            draw.text((x, y + cell + 2 + number * LINE), line, INK, font)
    return sheet
