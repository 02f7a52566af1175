"""The child that reads one picture of a stranger: limits first, then the decoder, then raw pixels and an end.

stdin: the file. stdout: one JSON line, and the pixels, row by row. An argument, JSON, has them turned into what a
control network sees. Whatever a damaged file does to a decoder happens here, in a process that may write nothing, reach
nothing and lasts for seconds.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sfumato.confined import give_up

if TYPE_CHECKING:
    from PIL.Image import Image

MEMORY = 1408 * 2**20  # beyond what an interpreter has; modules take a third of it
SECONDS = 15
PIXELS = 40_000_000
SIDE = 16_384
ROWS = 64
FILES = 32


def read(content: bytes) -> tuple[dict[str, Any], "Image | None"]:
    """What a picture file is, and the picture: upright, 8 bits a channel, sRGB. A `problem` where it is none."""
    from sfumato.errors import PictureError
    from sfumato.opening import open_picture, to_kept

    kind = magic(content)
    if kind is None:
        return problem(415, "picture.type", "the body is no PNG, JPEG or WebP picture"), None
    size = size_of(content, kind)
    if size is None:
        return problem(422, "picture.unreadable", f"the {kind} picture is damaged"), None
    width, height = size
    if width * height > PIXELS or max(size) > SIDE or min(size) < 1:
        told = f"the picture has {width}x{height} pixels; at most {SIDE} a side and {PIXELS} in all are taken"
        return problem(413, "picture.large", told), None
    try:
        kept = to_kept(open_picture(content, formats=(kind,)))
    except (PictureError, MemoryError) as error:
        return problem(422, "picture.unreadable", str(error) or "the picture needs too much memory"), None
    about = {"width": kept.width, "height": kept.height, "mode": kept.mode, "reading": reading(content, kind)}
    return about, kept


def seen(picture: "Image", wanted: dict[str, Any]) -> "Image":
    """What a control network sees of a picture: fitted to a `size`, where there is one, and preprocessed."""
    from sfumato.controls.preprocess import preprocess
    from sfumato.fitting import RESIZES
    from sfumato.opening import to_rgb

    plain = to_rgb(picture)
    fitted = RESIZES[wanted["resize"]](plain, *wanted["size"]) if wanted["size"] else plain
    return preprocess(fitted, wanted["preprocessor"], wanted["options"])


def pixels(picture: "Image") -> Iterator[bytes]:
    """The bytes of a picture, a few rows at a time."""
    for top in range(0, picture.height, ROWS):
        yield picture.crop((0, top, picture.width, min(top + ROWS, picture.height))).tobytes()


def magic(content: bytes) -> str | None:
    """Pillow's name of the format that a file begins like."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WEBP" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def size_of(content: bytes, kind: str) -> tuple[int, int] | None:
    """Width and height from the header alone; None if it cannot be read."""
    import io

    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own is the tighter one, and tells the size
    try:
        with Image.open(io.BytesIO(content), formats=(kind,)) as opened:
            return opened.size
    except Exception:  # a decoder may raise anything on a damaged file
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def reading(content: bytes, kind: str) -> dict[str, Any] | None:
    """What the metadata says, with the fields of a request that were understood; None if there is none."""
    import io

    from PIL import Image

    from sfumato.errors import SfumatoError
    from sfumato.metadata import describe

    try:
        with Image.open(io.BytesIO(content), formats=(kind,)) as opened:
            found = describe(opened)
    except SfumatoError as error:
        return {"tool": "", "request": {}, "text": "", "unread": [str(error)]}
    except Exception:
        return None
    if not found.tool:
        return None
    request, unread = understood(found)
    text = found.texts.get("parameters") or next(iter(found.texts.values()), "")
    return {"tool": found.tool, "request": request, "text": text[:65536], "unread": unread}


def understood(found: Any) -> tuple[dict[str, Any], list[str]]:
    """The settings that a request takes as they are, and the names of the others."""
    from sfumato.errors import RequestError
    from sfumato.request import Request

    if found.request is not None:
        whole = found.request.to_dict()
        if found.record:
            whole |= {"prompt": found.prompt, "seed": found.record["seed"], "count": 1}
        return whole, []
    request: dict[str, Any] = {"prompt": found.prompt, "negative_prompt": found.negative_prompt}
    unread = []
    for name, value in found.settings.items():
        try:
            Request.from_dict({name: value})
        except RequestError:
            unread.append(name)
        else:
            request[name] = value
    return request, unread


def problem(status: int, code: str, detail: str) -> dict[str, Any]:
    """What stands in the answer's place."""
    return {"problem": {"status": status, "code": code, "detail": detail}}


def main() -> None:
    """Read stdin, write stdout, end."""
    out = os.dup(1)
    os.dup2(2, 1)
    give_up(memory=MEMORY, seconds=SECONDS, written=0, files=FILES)
    about, picture = read(sys.stdin.buffer.read())
    if picture is not None and len(sys.argv) > 1:
        try:
            picture = seen(picture, json.loads(sys.argv[1]))
            about |= {"width": picture.width, "height": picture.height, "mode": picture.mode, "reading": None}
        except MemoryError:
            about, picture = problem(413, "picture.large", "the picture is too large for this; ask for less"), None
    with os.fdopen(out, "wb") as answer:
        answer.write(json.dumps(about).encode() + b"\n")
        if picture is not None:
            answer.writelines(pixels(picture))


if __name__ == "__main__":
    main()
