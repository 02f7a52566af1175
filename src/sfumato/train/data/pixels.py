"""From a file's bytes to the pixels of a view: which part of a picture is seen, how large, and mirrored or not.

What a file means in colours (orientation, profiles, transparency, 16 bits, CMYK) is `sfumato.images`' to say.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from os import cpu_count

import numpy as np
from PIL import Image, ImageOps

from sfumato.errors import DataError, PictureError
from sfumato.images import FORMATS, open_picture, to_rgb
from sfumato.train.data.alike import Print, thumbprint
from sfumato.train.data.buckets import Fit, Size
from sfumato.train.data.records import Record
from sfumato.train.data.samples import LeftOut

READ = (*FORMATS, "BMP", "GIF")
AHEAD = 256  # records that are looked at together; bounds the memory of what is waiting

Progressed = Callable[[int, int], None]
"""Told (pictures looked at, pictures in all) now and then."""


@dataclass(frozen=True)
class View:
    """What is seen of a picture: scaled to `scaled`, `size` cut out at `corner` (left, top), perhaps mirrored."""

    size: Size
    scaled: Size
    corner: tuple[int, int]
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found in a file that can be read: upright size, hash of the bytes, and a print if it was asked for."""

    size: Size
    digest: bytes
    likeness: Print | None = None


def view(lies: Fit, *, mirrored: bool = False, draw: int | None = None) -> View:
    """The middle of a scaled picture, or the place that a draw (any integer) chooses, each as likely."""
    spare = lies.scaled[0] - lies.size[0], lies.scaled[1] - lies.size[1]
    corner = spare[0] // 2, spare[1] // 2
    if draw is not None and spare != (0, 0):
        rng = np.random.default_rng([draw % 2**64, 1])
        corner = int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1))
    return View(lies.size, lies.scaled, corner, mirrored)


def show(record: Record, seen: View) -> Image.Image:
    """The view of a picture, RGB. Raises DataError naming a file that cannot be read any more."""
    try:
        picture = to_rgb(open_picture(record.place.read(), formats=READ))
    except (OSError, PictureError, DataError) as error:
        raise DataError(f"{record.name} could be read when the run began, but not now: {error}.") from error
    left, top = seen.corner
    part = (left, top, left + seen.size[0], top + seen.size[1])
    if picture.size == seen.scaled:
        picture = picture.crop(part)
    else:  # only what is seen is scaled: all of a very long picture might not fit into memory
        across, down = picture.width / seen.scaled[0], picture.height / seen.scaled[1]
        box = (part[0] * across, part[1] * down, part[2] * across, part[3] * down)
        picture = picture.resize(seen.size, Image.Resampling.LANCZOS, box=_within(box, picture.size))
    return ImageOps.mirror(picture) if seen.mirrored else picture


def _within(box: tuple[float, float, float, float], size: Size) -> tuple[float, float, float, float]:
    """The box, but for what rounding puts outside of the picture."""
    return max(0.0, box[0]), max(0.0, box[1]), min(float(size[0]), box[2]), min(float(size[1]), box[3])


def look_at(record: Record, *, prints: bool = False) -> Seen | LeftOut:
    """Decodes a picture once, whole: what is in it, or why it cannot be read."""
    try:
        content = record.place.read()
        picture = open_picture(content, formats=READ)
        likeness = thumbprint(to_rgb(picture)) if prints else None
    except (OSError, PictureError, DataError) as error:
        return LeftOut(record.name, _reason(error))
    return Seen(picture.size, hashlib.blake2b(content, digest_size=16).digest(), likeness)


def look_at_all(
    records: Sequence[Record], *, prints: bool = False, progressed: Progressed | None = None
) -> list[Seen | LeftOut]:
    """`look_at` every record, in order; Pillow's decoders leave the interpreter, so on several cores at once."""
    found: list[Seen | LeftOut] = []
    rest = iter(records)
    with ThreadPoolExecutor(min(16, cpu_count() or 1)) as pool:
        for some in _in_parts(rest):
            found += pool.map(lambda record: look_at(record, prints=prints), some)
            if progressed is not None:
                progressed(len(found), len(records))
    return found


def _in_parts(records: Iterator[Record]) -> Iterator[list[Record]]:
    while some := list(islice(records, AHEAD)):
        yield some


def _reason(error: Exception) -> str:
    return str(error).removeprefix("the picture ") or type(error).__name__
