"""A folder of pictures with captions: in metadata.jsonl or metadata.csv, or in a text of the same stem beside each."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sfumato.errors import DataError, reason
from sfumato.train.data.records import (
    PICTURE_SUFFIXES,
    FilePlace,
    Record,
    Source,
    checked_caption,
    checked_captions,
    read_text,
)

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_SUFFIXES = (".txt", ".caption")


def files_in(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with these suffixes below a folder, sorted; hidden ones are left out.

    Raises DataError for a symlink that leaves the folder: what is trained on is what is in it.
    """
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in inner:
            check_inside(Path(folder, name), root)
        found += [Path(folder, n) for n in names if n.lower().endswith(suffixes) and not n.startswith(".")]
    for path in found:
        check_inside(path, root)
    return sorted(found)


def check_inside(path: Path, root: Path) -> None:
    """Raises DataError if a symlink leads out of the folder."""
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{path} is a symlink that leaves {root}; put the file itself there, or train on its folder.")


def caption_beside(picture: Path, suffixes: tuple[str, ...] = CAPTION_SUFFIXES) -> str | None:
    """The text of the same stem, "" for an empty one, None without any. Raises DataError if two of them differ."""
    beside = [path for path in (picture.with_suffix(suffix) for suffix in suffixes) if path.is_file()]
    texts = [checked_caption(read_text(path), str(path)) for path in beside]
    if len(set(texts)) > 1:
        raise DataError(f"{beside[0]} and {beside[1].name} say different things; keep one of them.")
    return texts[0] if texts else None


def from_stems(root: Path) -> Source:
    """The pictures of a folder and of those in it, each with the .txt or .caption beside it."""
    records = []
    for path in files_in(root, PICTURE_SUFFIXES):
        text = caption_beside(path)
        records.append(Record(str(path.relative_to(root)), FilePlace(path), (text,) if text else ()))
    return Source(kind="folder with captions beside the pictures", where=str(root), records=records)


def from_metadata(path: Path, column: str, picture_column: str) -> Source:
    """The pictures that a metadata.jsonl or metadata.csv names, with one caption or a list of them.

    Raises DataError naming the line of what is wrong: a missing column, a picture that is not there, is named twice
    or lies outside the folder.
    """
    root, picture_column = path.parent, picture_column or "file_name"
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path, picture_column, column)
    records: list[Record] = []
    lines: dict[Path, int] = {}
    for number, row in rows:
        where = f"{path}, line {number}"
        missing = [name for name in (picture_column, column) if name not in row]
        if missing:
            raise DataError(f"{where}: there is no column {missing[0]!r}, but {', '.join(map(repr, row))}.")
        name = row[picture_column]
        picture = _picture(root, name, where)
        if picture in lines:
            raise DataError(f"{where}: {name!r} is named on line {lines[picture]}, too; give a list of captions.")
        lines[picture] = number
        records.append(Record(str(name), FilePlace(picture), checked_captions(row[column], f"{where}: {name!r}")))
    unnamed = [each for each in files_in(root, PICTURE_SUFFIXES) if each.resolve() not in lines]
    notes = [f"{len(unnamed)} pictures are not named by {path.name}, first {unnamed[0].name}."] if unnamed else []
    return Source(kind=f"folder with {path.name}", where=str(root), records=records, notes=notes)


def _picture(root: Path, name: object, where: str) -> Path:
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{where}: {name!r} is not the name of a file.")
    picture = (root / name).resolve()
    if not picture.is_relative_to(root.resolve()):
        raise DataError(f"{where}: {name!r} lies outside the folder.")
    if not picture.is_file():
        raise DataError(f"{where}: there is no picture {name!r}.")
    return picture


def _json_rows(path: Path, *columns: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(_whole(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: needs JSON with {' and '.join(columns)} ({error}).") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: needs JSON with {' and '.join(columns)}, found {line[:60]!r}.")
        yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(_whole(path).splitlines(keepends=True), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}, line {reader.line_num}: has not as many cells as the first line.")
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV: {error}.") from error


def _whole(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}.") from None


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises DataError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {reason(error)}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} must be a JSON object.")
    return value
