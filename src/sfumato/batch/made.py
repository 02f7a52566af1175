"""Whether a picture on disk is the one that a request asks for: by what it says itself, and by its pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from sfumato.errors import PictureError, reason
from sfumato.images import open_picture, to_mask, to_rgb
from sfumato.metadata import describe, pixels_digest
from sfumato.request import Request

READ = {"image": to_rgb, "mask": to_mask}


def difference(path: Path, request: Request, index: int) -> str | None:
    """What tells the file from picture `index` of the request; None if nothing does.

    Fields that the request leaves to the model may have any value. Start pictures are compared by their pixels, and
    the file's own pixels with the digest that it carries.
    """
    try:
        record = describe(path).record
        if record is None:
            return "has no metadata of sfumato"
        if record["index"] != index:
            return f"is picture {record['index']} of its request, not {index}"
        asked = request.to_dict()
        inputs = {name: asked.pop(name) for name in READ if name in asked}
        other = _other(asked, record["request"])
        if other is not None:
            return f"was made with another {other}"
        for name, source in inputs.items():
            if f"sha256:{pixels_digest(READ[name](open_picture(source)))}" != record["inputs"].get(name):
                return f"was made from another {name}"
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as opened:
            if opened.format != "JPEG" and pixels_digest(opened.convert("RGB")) != record["pixels"]["sha256"]:
                return "has other pixels than when it was made"
    except (PictureError, OSError, ValueError, KeyError, TypeError) as error:
        return f"cannot be read ({reason(error)})"
    return None


def _other(asked: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first field that was asked for and is not so in the record. Parts are compared field by field."""
    for name, value in asked.items():
        there = found.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            inner = _other(value, there)
            if inner is not None:
                return f"{name}.{inner}"
        elif there != value:
            return name
    return None
