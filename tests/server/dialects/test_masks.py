"""What other APIs mean by a mask, as white = repaint."""

import io

import pytest
from PIL import Image

from sfumato.server.dialects.masks import where_drawn, where_transparent, without_alpha


def png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def levels(file: bytes | None) -> list[int]:
    assert file is not None
    with Image.open(io.BytesIO(file)) as picture:
        assert picture.mode == "L"
        return list(picture.tobytes())


def alpha(*values: int) -> Image.Image:
    picture = Image.new("RGBA", (len(values), 1), (10, 20, 30, 0))
    picture.putalpha(Image.frombytes("L", picture.size, bytes(values)))
    return picture


def test_openai_edits_what_is_fully_transparent() -> None:
    assert levels(where_transparent(png(alpha(0, 1, 128, 255)))) == [255, 0, 0, 0]


@pytest.mark.parametrize("picture", [Image.new("RGB", (2, 2)), alpha(255, 255), alpha(1, 255)])
def test_a_picture_without_transparent_parts_is_no_mask(picture: Image.Image) -> None:
    assert where_transparent(png(picture)) is None


def test_the_colours_under_transparent_parts_stay() -> None:
    with Image.open(io.BytesIO(without_alpha(png(alpha(0, 255))))) as picture:
        assert (picture.mode, picture.tobytes()) == ("RGB", bytes([10, 20, 30] * 2))


def test_a1111_repaints_what_is_light_or_else_what_is_opaque() -> None:
    """modules/masking.py and processing.py: create_binary_mask rounds at 128."""
    grey = Image.frombytes("L", (4, 1), bytes([0, 128, 129, 255]))
    assert levels(where_drawn(png(grey), rounded=True)) == [0, 0, 255, 255]
    assert levels(where_drawn(png(alpha(0, 128, 129, 255)), rounded=True)) == [0, 0, 255, 255]
    assert levels(where_drawn(png(alpha(0, 128, 129, 255)), rounded=False)) == [0, 128, 129, 255]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_that_is_one_already_is_taken_as_it_is(mode: str) -> None:
    hard = Image.frombytes("L", (2, 1), bytes([0, 255])).convert(mode)
    assert where_drawn(png(hard), rounded=True) is None
    soft = Image.frombytes("L", (2, 1), bytes([7, 255])).convert(mode)
    assert where_drawn(png(soft), rounded=False) is None
