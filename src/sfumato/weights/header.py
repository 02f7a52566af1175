"""What a model file says about itself before a byte of a weight is read: its container and its table of tensors.

Nothing here imports torch. A safetensors file is eight bytes of length (little endian), that many bytes of JSON
({name: {dtype, shape, data_offsets}, "__metadata__": {str: str}}), and then the tensors, without gaps.
https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sfumato.errors import ModelFileError

HEADER_LIMIT = 25 * 1024 * 1024  # bytes; the headers of the largest real files stay below 8 MiB
TENSOR_LIMIT = 50_000  # a checkpoint of SDXL with its averaged copy has about 4,200
RANK_LIMIT = 8
ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
FLOATING = frozenset({"F8_E5M2", "F8_E4M3", "F16", "BF16", "F32", "F64"})

# The first bytes of what people have instead of a safetensors file, and what to do about it.
FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull` where it came from"),
    (b"GGUF", "a GGUF file", "use the safetensors file of the same model"),
    (b"\x89HDF", "an HDF5 file (Keras or TensorFlow)", "use the safetensors file of the same model"),
    (b"\x93NUMPY", "a NumPy array", "use the safetensors file of the model"),
    (b"\x89PNG", "a PNG picture", "name a model file"),
    (b"\xff\xd8\xff", "a JPEG picture", "name a model file"),
    (b"RIFF", "a WebP picture or a sound", "name a model file"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"{", "a JSON text", "name the folder or the .safetensors file that it describes"),
)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's place in a file: bytes `start` to `end`, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The table of a safetensors file: its tensors in the order of their names, and its metadata.

    `start` is the byte where the tensors begin; `state` is what shows that the file is still the one that was read.
    `source` is the file that was named: another than `path` where that was converted from it.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    start: int
    state: tuple[int, int, int]
    source: Path


def first_bytes(path: Path) -> bytes:
    """Return the beginning of a file, which says what it is. Raises ModelFileError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def describe_foreign(start: bytes) -> tuple[str, str] | None:
    """Say what a file's first bytes show it to be and what to do, or None when it may be safetensors."""
    if not start:
        return "an empty file", "download it again"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "an HTML page", "the download gave a web page (a login, a licence or an error): download the file again"
    for magic, what, remedy in FOREIGN:
        if start.startswith(magic) and start[8:9] != b"{":
            return what, remedy
    if start[257:262] == b"ustar":
        return "a tar archive", "unpack it first"
    if not start.strip(b"\0"):
        return "a file of zeros", "the download did not finish: download it again"
    return None


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; no weight is read.

    Raises ModelFileError, which says what the file is instead, or where its header contradicts itself or its size.
    """
    try:
        with path.open("rb") as file:
            state = state_of(file.fileno())
            size = state[0]
            start = file.read(512)
            if (foreign := describe_foreign(start)) is not None:
                raise ModelFileError(f"{path}: not a safetensors file but {foreign[0]}; {foreign[1]}.")
            length = header_length(path, start, size)
            file.seek(8)
            body = file.read(length)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(body) != length:
        raise ModelFileError(f"{path}: truncated inside its header; download it again.")
    table = parse_table(path, body)
    metadata = read_metadata(path, table.pop("__metadata__", {}))
    if len(table) > TENSOR_LIMIT:
        raise ModelFileError(f"{path}: names {len(table):,} tensors; at most {TENSOR_LIMIT:,} are read.")
    tensors = {name: read_entry(path, name, entry) for name, entry in table.items()}
    check_ranges(path, tensors, size - 8 - length)
    ordered = MappingProxyType(dict(sorted(tensors.items())))
    return Header(path, ordered, MappingProxyType(metadata), 8 + length, state, path)


def state_of(descriptor: int) -> tuple[int, int, int]:
    """Return an open file's size in bytes, time of change in nanoseconds, and number on its disk."""
    state = os.fstat(descriptor)
    return state.st_size, state.st_mtime_ns, state.st_ino


def header_length(path: Path, start: bytes, size: int) -> int:
    """Return the length of the JSON table, checked against the file's size and the limit."""
    if size < 10:
        raise ModelFileError(f"{path}: {size} bytes are too few for a safetensors file; download it again.")
    length: int = struct.unpack("<Q", start[:8])[0]
    if start[8:9] != b"{":
        raise ModelFileError(f"{path}: not a model file that sfumato can read; it should be a .safetensors file.")
    if length > HEADER_LIMIT:
        raise ModelFileError(f"{path}: claims a header of {length:,} bytes; at most {HEADER_LIMIT:,} are read.")
    if length < 2 or length > size - 8:
        raise ModelFileError(
            f"{path}: truncated: its header should have {length:,} bytes and {size - 8:,} are there; download it again."
        )
    return length


def parse_table(path: Path, body: bytes) -> dict[str, Any]:
    """Parse the JSON table; a name that occurs twice is an error."""
    try:
        table = json.loads(body.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: damaged: its header is not valid: {str(error)[:200]}; get it again.") from error
    if not isinstance(table, dict):
        raise ModelFileError(f"{path}: damaged: its header is a {type(table).__name__}, not a table; get it again.")
    return table


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from JSON pairs; raises ValueError when a name occurs twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} occurs twice")
    return table


def refuse_constant(name: str) -> float:
    """Refuse NaN and the infinities, which are not JSON."""
    raise ValueError(f"{name} is not a number")


def read_metadata(path: Path, metadata: object) -> dict[str, str]:
    """Return the metadata when it maps text to text."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFileError(f"{path}: damaged: its metadata does not map text to text; get it again.")
    return metadata


def read_entry(path: Path, name: str, entry: object) -> TensorInfo:
    """Check one entry of the table: a known type, a shape, and as many bytes as both need."""
    where = f"{path}: damaged: tensor {name[:200]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{where} is not described by dtype, shape and data_offsets; get it again.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ModelFileError(f"{where} has the type {dtype!r:.60}; known are {', '.join(ITEM_BYTES)}.")
    if not is_counts(shape) or len(shape) > RANK_LIMIT:
        raise ModelFileError(f"{where} has the shape {shape!r:.60}; it should be at most {RANK_LIMIT} counts.")
    if not is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFileError(f"{where} lies at {offsets!r:.60}; it should be two rising offsets.")
    info = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    if info.count * ITEM_BYTES[dtype] != info.end - info.start:
        raise ModelFileError(
            f"{where} of type {dtype} and shape {shape} needs {info.count * ITEM_BYTES[dtype]:,} bytes; "
            f"{info.end - info.start:,} are set aside for it."
        )
    return info


def is_counts(value: object) -> bool:
    """Say whether a JSON value is a list of integers from 0 to 2^63 - 1."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def check_ranges(path: Path, tensors: Mapping[str, TensorInfo], available: int) -> None:
    """Check that the tensors fill the file exactly: no gap, no overlap, nothing missing and nothing left over."""
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            what = "overlaps another" if info.start < position else "leaves a gap before it"
            raise ModelFileError(f"{path}: damaged: tensor {name[:200]!r} {what} in the file; get it again.")
        position = info.end
    if position > available:
        raise ModelFileError(
            f"{path}: truncated: its header promises {position:,} bytes of tensors and {available:,} are there; "
            "download it again."
        )
    if position < available:
        raise ModelFileError(
            f"{path}: damaged: {available - position:,} bytes follow its last tensor; they belong to nothing."
        )
