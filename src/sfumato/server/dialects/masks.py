"""Masks as other APIs mean them, as the grey masks of a request, where white is repainted. Only of files of our own."""

import io

from PIL import Image

ROUND = 128  # A1111's create_binary_mask: above it is repainted


def where_transparent(file: bytes) -> bytes | None:
    """The mask that repaints what is fully transparent, OpenAI's; None for a picture without transparent parts."""
    with Image.open(io.BytesIO(file)) as picture:
        if "A" not in picture.getbands():
            return None
        mask = picture.getchannel("A").point([255, *[0] * 255])
        return _png(mask) if mask.getbbox() else None


def where_drawn(file: bytes, *, rounded: bool) -> bytes | None:
    """The mask that A1111 makes: what is opaque if anything is transparent, else what is light; rounded or as it is.

    None where the picture is that mask already.
    """
    with Image.open(io.BytesIO(file)) as picture:
        drawn = "A" in picture.getbands() and picture.getchannel("A").getextrema() != (255, 255)
        grey = picture.getchannel("A") if drawn else picture.convert("L")
        rounds = rounded and any(grey.histogram()[1:255])
        if rounds:
            grey = grey.point([255 if level > ROUND else 0 for level in range(256)])
        return _png(grey) if drawn or rounds else None


def without_alpha(file: bytes) -> bytes:
    """The colours of a picture, also where it is transparent: an edit begins with what is under its mask."""
    with Image.open(io.BytesIO(file)) as picture:
        return _png(picture.convert("RGB"))


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
