"""Small sets of pictures, made by the tests that read them."""

import io
import tarfile
from pathlib import Path

import torch
from PIL import Image

from sfumato.train.data import PictureSet, read_source
from sfumato.train.data.pixels import look_at_all

Colour = tuple[int, int, int]
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)


def encoded(colour: Colour = RED, size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    """The bytes of a picture of one colour."""
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, kind)
    return content.getvalue()


def picture(path: Path, colour: Colour = RED, size: tuple[int, int] = (32, 32), text: str | None = None) -> Path:
    """A picture of one colour as a file, perhaps with a text beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(colour, size, "JPEG" if path.suffix == ".jpg" else path.suffix[1:].upper()))
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def shard(path: Path, members: dict[str, bytes | str], mode: str = "w") -> Path:
    """A tar with these members, in this order."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def opened(path: Path | str, size: int = 32, column: str = "text", picture_column: str = "") -> PictureSet:
    """The set at a path, however many of its pictures cannot be read."""
    source = read_source(str(path), column, picture_column)
    return PictureSet(source, size, look_at_all(source.records), tolerated=1.0)


def colours(samples: PictureSet) -> list[Colour]:
    """The colour in the middle of each sample."""
    pixels = samples.pictures(range(samples.length))
    middle = pixels[:, :, samples.size // 2, samples.size // 2]
    return [tuple(row) for row in ((middle + 1) * 127.5).round().to(torch.int64).tolist()]


def said(samples: PictureSet, draw: int = 0) -> list[str]:
    """The captions of all samples at a draw."""
    return samples.captions(range(samples.length), [draw] * samples.length)
