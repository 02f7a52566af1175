"""The sheet of a plot: every picture in its place, its bytes kept, labels that are there and do not touch it."""

import numpy as np
import pytest
from PIL import Image

from sfumato.errors import PictureError
from sfumato.plots.axes import Axis, parse_axis
from sfumato.plots.sheet import INK, PAPER, plot_sheet

SIZE = 48


def picture(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE), colour)


def find(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int]:
    """The upper left corner of a picture of one colour, which must be there whole and once."""
    rows, columns = np.where((np.asarray(sheet) == colour).all(axis=2))
    assert len(rows) == SIZE * SIZE
    assert (rows.max() - rows.min(), columns.max() - columns.min()) == (SIZE - 1, SIZE - 1)
    return int(columns.min()), int(rows.min())


def colours(x: int, y: int, z: int) -> tuple[int, int, int]:
    return 40 + 60 * x, 50 + 60 * y, 60 + 60 * z


def test_every_picture_lies_whole_in_its_row_column_and_block() -> None:
    axes = (parse_axis("steps=10,20,30"), parse_axis("guidance=2,5"), parse_axis("sampler=euler,ddim"))
    places = [(x, y, z) for x in range(3) for y in range(2) for z in range(2)]
    sheet = plot_sheet({place: picture(colours(*place)) for place in places}, *axes)
    corners = {place: find(sheet, colours(*place)) for place in places}
    for x, y, z in places:
        assert corners[x, y, z][0] == corners[x, 0, 0][0]
        assert corners[x, y, z][1] == corners[0, y, z][1]
    assert corners[0, 0, 0][0] < corners[1, 0, 0][0] < corners[2, 0, 0][0]
    assert corners[0, 0, 0][1] < corners[0, 1, 0][1] < corners[0, 0, 1][1] < corners[0, 1, 1][1]


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_each_axis_has_its_labels(axis: str) -> None:
    texts = ("first value", "another much longer value of this axis that takes many words to say")
    given = {axis: Axis("prompt", texts, texts)}
    places = {"x": [(0, 0, 0), (1, 0, 0)], "y": [(0, 0, 0), (0, 1, 0)], "z": [(0, 0, 0), (0, 0, 1)]}[axis]
    made = {place: picture((200, 0, 0)) for place in places}
    with_labels, without = plot_sheet(made, **given), plot_sheet({(0, 0, 0): picture((200, 0, 0))})
    inked = (np.abs(np.asarray(with_labels).astype(int) - INK) < 60).all(axis=2)
    assert inked.sum() > 100
    assert set(map(tuple, np.asarray(without).reshape(-1, 3))) == {PAPER, (200, 0, 0)}
    # the letters lie on the paper beside the pictures: both are there whole
    assert (np.asarray(with_labels) == (200, 0, 0)).all(axis=2).sum() == 2 * SIZE * SIZE


def test_a_cell_that_was_not_drawn_stays_empty() -> None:
    axis = parse_axis("steps=10,20")
    sheet = plot_sheet({(0, 0, 0): picture((200, 0, 0))}, axis)
    find(sheet, (200, 0, 0))
    assert sheet.size == plot_sheet({(x, 0, 0): picture((200, 0, 0)) for x in (0, 1)}, axis).size
    with pytest.raises(PictureError, match="nothing to show"):
        plot_sheet({}, axis)


def test_pictures_of_several_sizes_fit_into_cells_of_the_largest() -> None:
    axis = parse_axis("size=48x48,96x64")
    sheet = plot_sheet({(0, 0, 0): picture((200, 0, 0)), (1, 0, 0): Image.new("RGB", (96, 64), (0, 200, 0))}, axis)
    find(sheet, (200, 0, 0))
    assert (np.asarray(sheet) == (0, 200, 0)).all(axis=2).sum() == 96 * 64
