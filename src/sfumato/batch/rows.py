"""Requests from a table: CSV or TSV with fields as columns, JSON lines, or a JSON list of objects."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import DataError, RequestError, SfumatoError
from sfumato.request import Request
from sfumato.request.texts import field_name, field_value, put

LARGEST = 256 * 1024 * 1024  # bytes of a table


@dataclass(frozen=True)
class Row:
    """A row of a table, counted from 1: its request and what its pictures are named by, or what is wrong with it."""

    number: int
    request: Request | None
    key: str = ""
    error: str = ""


def read_rows(path: Path, base: Mapping[str, Any]) -> list[Row]:
    """The rows of a file; `base` has the fields of those that a row leaves out.

    A row that is wrong says so in its place. Raises DataError for a file that is no table.
    """
    rows = []
    seen: Counter[str] = Counter()
    for number, values in enumerate(_values(path), start=1):
        try:
            if isinstance(values, SfumatoError):
                raise values
            request = Request.from_dict({**base, **values})
        except SfumatoError as error:
            rows.append(Row(number, None, error=str(error)))
            continue
        key = request_key(request)
        seen[key] += 1
        if seen[key] > 1:  # the same request once more is another picture, where no seed says otherwise
            key = hashlib.sha256(f"{key} {seen[key]}".encode()).hexdigest()
        rows.append(Row(number, request, key))
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def request_key(request: Request) -> str:
    """The sha256 of a request, the same for every order of its fields."""
    return hashlib.sha256(json.dumps(request.to_dict(), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _values(path: Path) -> Iterator[Mapping[str, Any] | SfumatoError]:
    """The fields of each row, or what is wrong with it."""
    readers = {".csv": _comma, ".tsv": _tab, ".jsonl": _lines, ".ndjson": _lines, ".json": _list}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no table that can be read; known are {', '.join(readers)}")
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST} bytes; divide it")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        yield from reader(text)
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _comma(text: str) -> Iterator[Mapping[str, Any] | SfumatoError]:
    return _table(text, ",")


def _tab(text: str) -> Iterator[Mapping[str, Any] | SfumatoError]:
    return _table(text, "\t")


def _table(text: str, delimiter: str) -> Iterator[Mapping[str, Any] | SfumatoError]:
    lines = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    header = next(lines, [])
    try:
        names = [field_name(name) for name in header]
    except RequestError as error:
        raise DataError(f"the first line names the fields: {error}") from error
    for line in lines:
        if not any(cell.strip() for cell in line):
            continue
        yield _row(names, line)


def _row(names: list[str], line: list[str]) -> Mapping[str, Any] | SfumatoError:
    if len(line) > len(names):
        return DataError(f"it has {len(line)} cells and the first line {len(names)}; a cell with a comma needs quotes")
    values: dict[str, Any] = {}
    for name, cell in zip(names, line, strict=False):
        if cell.strip():
            try:
                put(values, name, field_value(name, cell.strip()))
            except SfumatoError as error:
                return error
    return values


def _lines(text: str) -> Iterator[Mapping[str, Any] | SfumatoError]:
    for line in text.split("\n"):  # what else ends a line may stand in a text
        if not line.strip():
            continue
        try:
            yield _object(json.loads(line))
        except (ValueError, RecursionError) as error:
            yield DataError(f"it is not JSON: {error}")


def _list(text: str) -> Iterator[Mapping[str, Any] | SfumatoError]:
    values = json.loads(text)
    yield from map(_object, values if isinstance(values, list) else [values])


def _object(value: object) -> Mapping[str, Any] | SfumatoError:
    if isinstance(value, dict):
        return value
    return DataError(f"it is {value!r}; each row is an object of fields")
