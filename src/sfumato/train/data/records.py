"""What every kind of source is read into: records of pictures, in groups that share their rules."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sfumato.errors import DataError, reason
from sfumato.train.data.buckets import BucketRules
from sfumato.train.data.words import CaptionRules

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
MAX_PICTURE = 512 * 2**20  # bytes of one picture's file; the largest picture that is read has 192 MiB of pixels
MAX_CAPTION = 64 * 2**10  # bytes; some thousand words, far beyond what any text encoder sees


class Place(Protocol):
    """Where the bytes of a picture lie."""

    def read(self) -> bytes:
        """The file's bytes. Raises OSError or DataError."""
        ...


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A picture that is a file."""

    path: Path

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            content = file.read(MAX_PICTURE + 1)
        if len(content) > MAX_PICTURE:
            raise DataError(f"the file has more than {MAX_PICTURE >> 20} MiB")
        return content


@dataclass(frozen=True, slots=True)
class SpanPlace:
    """A picture that is a part of a file, such as a tar shard. In bytes."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        if self.size > MAX_PICTURE:
            raise DataError(f"the picture has more than {MAX_PICTURE >> 20} MiB")
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise DataError(f"{self.path} ends within the picture")
        return content


@dataclass(frozen=True, slots=True)
class Record:
    """A picture by the name that people know it by, its captions (none, one, several) and the number of its group."""

    name: str
    place: Place
    captions: tuple[str, ...]
    group: int = 0


@dataclass(frozen=True, kw_only=True)
class Group:
    """What holds for some pictures of a source together.

    `regularises` marks pictures of the class rather than the subject (DreamBooth's prior preservation); they are
    repeated until there are as many as of the others. `resolution` is width and height where the source says it.
    `buckets` None cuts every picture to the resolution.
    """

    words: CaptionRules = field(default_factory=CaptionRules)
    repeats: int = 1
    regularises: bool = False
    flip: bool = False
    random_crop: bool = False
    resolution: tuple[int, int] | None = None
    buckets: BucketRules | None = field(default_factory=BucketRules)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set as it lies on disk, nothing but its captions read. `notes` say what was passed over, for people.

    `decides_shapes` says that the groups' resolutions and buckets are what the set itself asks for.
    """

    kind: str
    where: str
    records: Sequence[Record]
    groups: Sequence[Group] = (Group(),)
    notes: Sequence[str] = field(default_factory=tuple)
    decides_shapes: bool = False


def checked_caption(text: str, where: str) -> str:
    """A caption without the space around it. Raises DataError for what no tokenizer takes."""
    if "\0" in text:
        raise DataError(f"{where}: the caption has a NUL character; remove it.")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise DataError(f"{where}: the caption is not valid Unicode (half of a surrogate pair).") from None
    if size > MAX_CAPTION:
        raise DataError(f"{where}: the caption has {size} bytes; more than {MAX_CAPTION} is no caption.")
    return text.strip()


def checked_captions(value: object, where: str) -> tuple[str, ...]:
    """The captions of a row: a text, a list of texts, or nothing; empty ones are left out.

    Raises DataError for anything else.
    """
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: a caption is a text or a list of texts, found {str(value)[:60]!r}.")
    return tuple(text for text in (checked_caption(text, where) for text in texts) if text)


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file such as a caption. Raises DataError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_CAPTION + 1)
        return content.decode("utf-8-sig") if len(content) <= MAX_CAPTION else _too_long(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}.") from error


def _too_long(path: Path) -> str:
    raise DataError(f"{path} has more than {MAX_CAPTION} bytes; that is no caption.")
