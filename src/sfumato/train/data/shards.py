"""Tar shards as the webdataset library writes them: members key.jpg with key.txt or key.json, read where they lie.

Only the headers and the captions are read; a picture is found again by its offset. So shards must not be compressed:
pictures are already.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.errors import DataError, reason
from sfumato.train.data.records import MAX_CAPTION, Record, Source, SpanPlace, checked_captions

PICTURES = ("jpg", "jpeg", "png", "webp")
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MAX_SHARDS = 100_000
BLOCK = 512  # bytes, tar's unit


@dataclass
class _Parts:
    """What a shard holds under one key: places of pictures by suffix, and the words."""

    pictures: dict[str, SpanPlace] = field(default_factory=dict)
    text: str | None = None
    fields: dict[str, object] | None = None


def expanded(name: str) -> list[Path]:
    """The paths that `shards-{0000..0012}.tar` stands for; a plain path is itself."""
    found = RANGE.search(name)
    if found is None:
        return [Path(name)]
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + MAX_SHARDS:
        raise DataError(f"{name}: the range of shards must go up, over at most {MAX_SHARDS} of them.")
    numbers = (f"{number:0{len(found[1])}d}" for number in range(first, last + 1))
    return [path for number in numbers for path in expanded(name[: found.start()] + number + name[found.end() :])]


def from_shards(paths: Sequence[Path], where: str, column: str) -> Source:
    """The pictures of tar shards, in the shards' order. `column` names the caption in a .json; a .txt goes before it.

    Raises DataError naming the shard that is missing, compressed or damaged, and the member that is there twice.
    """
    records: list[Record] = []
    bare = 0
    for path in paths:
        if not path.is_file():
            raise DataError(f"There is no shard {path}.")
        for key, parts in _keys(path).items():
            if not parts.pictures:
                bare += 1
                continue
            if len(parts.pictures) > 1:
                raise DataError(f"{path}: {key} has {len(parts.pictures)} pictures; a sample has one.")
            said: object = parts.text
            if said is None and parts.fields is not None:
                if column not in parts.fields:
                    known = ", ".join(map(repr, parts.fields))
                    raise DataError(f"{path}: {key}.json has no {column!r}, but {known}.")
                said = parts.fields[column]
            ((suffix, place),) = parts.pictures.items()
            name = f"{path.name}/{key}.{suffix}"
            records.append(Record(name, place, checked_captions(said, name)))
    notes = [f"{bare} keys without a picture ({', '.join(PICTURES)}) are passed over."] if bare else []
    kind = f"{len(paths)} tar shard{'s' * (len(paths) != 1)}"
    return Source(kind=kind, where=where, records=records, notes=notes)


def _keys(path: Path) -> dict[str, _Parts]:
    """What a shard holds, by key."""
    keys: dict[str, _Parts] = {}
    seen: set[str] = set()
    with open(path, "rb") as file:
        for member in _members(path):
            folder, slash, base = member.name.rpartition("/")
            key, dot, suffix = base.partition(".")
            suffix = suffix.lower()
            if not key or not dot or suffix not in (*PICTURES, "txt", "json"):
                continue
            if f"{folder}{slash}{key}.{suffix}" in seen:
                raise DataError(f"{path}: {member.name} is there twice.")
            seen.add(f"{folder}{slash}{key}.{suffix}")
            parts = keys.setdefault(f"{folder}{slash}{key}", _Parts())
            if suffix in PICTURES:
                parts.pictures[suffix] = SpanPlace(path, member.offset_data, member.size)
                continue
            if member.size > 16 * MAX_CAPTION:  # a .json holds more than the caption
                raise DataError(f"{path}: {member.name} has {member.size} bytes; that is no caption.")
            file.seek(member.offset_data)
            _read_words(parts, suffix, file.read(member.size), f"{path}: {member.name}")
    return keys


def _read_words(parts: _Parts, suffix: str, content: bytes, where: str) -> None:
    try:
        text = content.decode("utf-8-sig")
        if suffix == "txt":
            parts.text = text
            return
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} cannot be read: {error}.") from None
    if not isinstance(fields, dict):
        raise DataError(f"{where} must be a JSON object.")
    parts.fields = fields


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The plain files of a tar, each checked to lie within it."""
    try:
        length = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # which would grow with every member
                if member.issparse() or member.offset_data + member.size > length:
                    raise DataError(f"{path}: {member.name} is damaged: the shard ends within it.")
                if member.isfile():
                    yield member
            _check_end(path, tar.offset, length)
    except tarfile.ReadError as error:
        hint = "compressed: unpack it, pictures gain nothing" if _compressed(path) else f"no tar, or damaged: {error}"
        raise DataError(f"{path} is {hint}.") from error
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}.") from error


def _check_end(path: Path, offset: int, length: int) -> None:
    """Raises DataError where the reader stopped at something else than the end; it takes damage for the end."""
    with open(path, "rb") as file:
        file.seek(offset)
        if any(file.read(BLOCK)):
            raise DataError(f"{path} is damaged at byte {offset} of {length}: there is no header of a member.")


def _compressed(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(6)
    return start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
