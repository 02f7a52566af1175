"""Tables with a column of pictures: Hugging Face sets saved to disk, and plain parquet or arrow files.

Read through pyarrow, which is optional: `pip install sfumato[arrow]`. Arrow files are mapped into memory, so that any
row is at hand; parquet is read by row groups, of which a few are kept, so that it suits reading in order.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from sfumato.errors import DataError
from sfumato.train.data.folder import json_object
from sfumato.train.data.records import MAX_PICTURE, Record, Source, checked_captions

TABLE_SUFFIXES = (".parquet", ".arrow")
KEPT = 4  # row groups in memory; Hugging Face writes 100 pictures into one


def pyarrow() -> Any:
    """The library. Raises DataError that says how to install it."""
    try:
        import pyarrow as library
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"Parquet and arrow files are read through pyarrow, which cannot be used ({error}): "
            "pip install 'sfumato[arrow]'."
        ) from None
    assert pyarrow is not None
    return library


class Table:
    """A parquet or arrow file: whole columns of words, and single cells of pictures."""

    def __init__(self, path: Path) -> None:
        library = pyarrow()
        if not path.is_file():
            raise DataError(f"There is no table {path}.")
        self.path = path
        self._lock = Lock()  # rows are read by several threads
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._is_parquet = path.suffix.lower() == ".parquet"
        try:
            self._file: Any = library.parquet.ParquetFile(path) if self._is_parquet else _mapped(library, path)
            if self._is_parquet:
                schema, metadata = self._file.schema_arrow, self._file.metadata
                rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            else:
                self._file.validate()
                schema, rows = self._file.schema, [self._file.num_rows]
            self.names: list[str] = list(schema.names)
            self.picture_columns: list[str] = [
                field.name for field in schema if _can_be_pictures(library.types, field.type)
            ]
            if sum(rows) > path.stat().st_size:
                raise DataError(f"{path} is damaged: it says that it has {sum(rows)} rows, more than bytes.")
        except (library.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged, or neither parquet nor arrow: {error}.") from error
        self._counts = rows
        self.rows = [(group, row) for group, count in enumerate(rows) for row in range(count)]

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return [value for group in range(len(self._counts)) for value in self._part(group, name).to_pylist()]

    def cell(self, row: int, name: str) -> Any:
        """The value of a row."""
        group, place = self.rows[row]
        with self._lock:
            return self._part(group, name)[place].as_py()

    def _part(self, group: int, name: str) -> Any:
        """A column of a row group; an arrow file is one group. Raises DataError for what is damaged."""
        key = group, name
        if key not in self._kept:
            library = pyarrow()
            try:
                table = self._file.read_row_group(group, [name]) if self._is_parquet else self._file
                part = table.column(name)
                part.validate(full=True)  # offsets and lengths, which reading a cell takes for granted
            except (library.ArrowException, OSError, ValueError) as error:
                raise DataError(f"{self.path} is damaged in column {name!r}: {error}.") from error
            if len(part) != self._counts[group]:
                raise DataError(f"{self.path} is damaged: {name!r} has {len(part)} rows of {self._counts[group]}.")
            self._kept[key] = part
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


@dataclass(frozen=True, slots=True)
class RowPlace:
    """A picture in a cell: bytes, or a struct of `bytes` and `path` as Hugging Face's Image feature has it."""

    table: Table
    row: int
    column: str

    def read(self) -> bytes:
        cell = self.table.cell(self.row, self.column)
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None and isinstance(cell, dict) and isinstance(cell.get("path"), str):
            return self._beside(cell["path"])
        if not isinstance(content, bytes):
            raise DataError("the cell holds no bytes of a picture")
        return content

    def _beside(self, name: str) -> bytes:
        root = self.table.path.parent.resolve()
        path = (root / name).resolve() if "\0" not in name else root
        if not path.is_relative_to(root) or not path.is_file():
            raise DataError(f"the cell names {name!r}, which is not in the folder of the table")
        with open(path, "rb") as file:
            return file.read(MAX_PICTURE)


def from_saved(root: Path, column: str, picture_column: str) -> Source:
    """A set that `datasets` has saved to disk; of several splits the one called train, or the only one."""
    if (root / "dataset_dict.json").is_file():
        splits = json_object(root / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits) or not splits:
            raise DataError(f"{root / 'dataset_dict.json'} names no splits.")
        if "train" not in splits and len(splits) > 1:
            raise DataError(f"{root} has the splits {', '.join(splits)}; name the folder of one.")
        split = "train" if "train" in splits else splits[0]
        if Path(split).name != split:
            raise DataError(f"{root}: {split!r} is not the name of a split.")
        return from_saved(root / split, column, picture_column)
    state = json_object(root / "state.json")
    if state.get("_indices_data_files"):
        raise DataError(f"{root} is a selection of other rows; save it with flatten_indices() first.")
    files = state.get("_data_files")
    names = [each.get("filename") for each in files if isinstance(each, dict)] if isinstance(files, list) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise DataError(f"{root / 'state.json'} names no files of data.")
    found = from_tables([root / str(name) for name in names], str(root), column, picture_column)
    return Source(kind="set saved by datasets", where=str(root), records=found.records)


def from_tables(paths: Sequence[Path], where: str, column: str, picture_column: str) -> Source:
    """The rows of parquet or arrow files. Without a name, the column of pictures is the only one that can be."""
    records = []
    for path in paths:
        table = Table(path)
        names = table.names
        if column not in names:
            raise DataError(f"{path} has no column {column!r} of captions, but {', '.join(map(repr, names))}.")
        pictures = picture_column or _picture_column(table)
        if pictures not in names:
            raise DataError(f"{path} has no column {pictures!r} of pictures, but {', '.join(map(repr, names))}.")
        for row, said in enumerate(table.column(column)):
            name = f"{path.name}, row {row}"
            records.append(Record(name, RowPlace(table, row, pictures), checked_captions(said, name)))
    kind = (
        f"{len(paths)} {'parquet' if paths[0].suffix.lower() == '.parquet' else 'arrow'} file{'s' * (len(paths) != 1)}"
    )
    return Source(kind=kind, where=where, records=records)


def _picture_column(table: Table) -> str:
    found = table.picture_columns
    if len(found) != 1:
        listed = ", ".join(map(repr, found or table.names))
        raise DataError(f"{table.path}: {'several' if found else 'no'} columns can hold pictures: {listed}. Name one.")
    return found[0]


def _can_be_pictures(types: Any, kind: Any) -> bool:
    """Is a column of bytes, or of structs that have a field `bytes`?"""
    if types.is_struct(kind):
        return "bytes" in {kind.field(at).name for at in range(kind.num_fields)}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _mapped(library: Any, path: Path) -> Any:
    """An arrow file as a table in mapped memory; `datasets` writes the stream format, others the file format."""
    source = library.memory_map(str(path), "r")
    try:
        return library.ipc.open_stream(source).read_all()
    except library.ArrowInvalid:
        source.seek(0)
        return library.ipc.open_file(source).read_all()
