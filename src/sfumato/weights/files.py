"""A checkpoint as a lazy Mapping[str, Tensor]: one file, or several behind an index. Every weight comes in here.

What a file is, its first bytes say, never its name. Opening a safetensors file reads its header only; a pickle is
converted to one first (`pickle_door`). Tensors are read one at a time, as they are asked for.
"""

import io
import json
import logging
import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import ModelFileError, UnsafeCheckpointError
from sfumato.weights.header import Header, TensorInfo, first_bytes, read_header, state_of
from sfumato.weights.pickle_door import converted, is_pickle, may_be_old_pickle

log = logging.getLogger(__name__)

JSON_LIMIT = 16 * 1024 * 1024  # bytes; the longest real one, a tokenizer.json, has about 2 MB


DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}


class TensorFile(Mapping[str, Tensor]):
    """The tensors of one or more safetensors files, read into memory when they are asked for.

    `infos` has each tensor's type and shape, `metadata` the first file's metadata, `paths` the files that were named.
    """

    def __init__(self, headers: list[Header]) -> None:
        self.paths = tuple(header.source for header in headers)
        self.metadata = headers[0].metadata
        self.infos: dict[str, TensorInfo] = {}
        self._header_of: dict[str, Header] = {}
        self._mappings: dict[Path, mmap.mmap] = {}
        for header in headers:
            for name, info in header.tensors.items():
                if name in self.infos:
                    raise ModelFileError(f"{header.path}: tensor {name!r} is also in {self.path_of(name).name}.")
                self.infos[name] = info
                self._header_of[name] = header

    def __getitem__(self, name: str) -> Tensor:
        info = self.infos[name]
        tensor = torch.empty(info.shape, dtype=DTYPES[info.dtype])
        self.read_into(name, tensor)
        return tensor

    def read_into(self, name: str, tensor: Tensor) -> None:
        """Fill a dense CPU tensor of as many bytes from the file. Raises ModelFileError where that cannot be done."""
        header, info = self._header_of[name], self.infos[name]
        with self._unchanged(header) as file:
            file.seek(header.start + info.start)
            fill_buffer(file, memoryview(tensor.view(-1).view(torch.uint8).numpy().data))

    def map(self, name: str) -> Tensor:
        """Return a tensor that lies in the file's pages in memory: nothing is copied until it is written to.

        It is for weights that are used as the file has them. The file must stay as it is while they are in use.
        """
        header, info = self._header_of[name], self.infos[name]
        if header.path not in self._mappings:
            with self._unchanged(header) as file:
                self._mappings[header.path] = mmap.mmap(file.fileno(), header.state[0], access=mmap.ACCESS_COPY)
        room, shape = self._mappings[header.path], info.shape
        dtype, start = DTYPES[info.dtype], header.start + info.start
        if start % dtype.itemsize or not math.prod(shape):
            return self[name]
        return torch.frombuffer(room, dtype=dtype, count=math.prod(shape), offset=start).view(shape)

    @contextmanager
    def _unchanged(self, header: Header) -> Iterator[io.FileIO]:
        """Open a file, if it still is the one whose header was read."""
        try:
            with header.path.open("rb", buffering=0) as file:
                if state_of(file.fileno()) != header.state:
                    raise ModelFileError(f"{header.path}: was changed while it was being read; load it again.")
                yield file
        except OSError as error:
            raise ModelFileError(f"{header.path}: cannot be read: {error.strerror or error}") from error

    def path_of(self, name: str) -> Path:
        """Return the file that holds a tensor."""
        return self._header_of[name].source

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def __contains__(self, name: object) -> bool:
        return name in self.infos


def fill_buffer(file: io.FileIO, buffer: memoryview) -> None:
    """Fill a buffer from a file. Raises OSError if the file ends before."""
    while buffer:
        count = file.readinto(buffer)
        if not count:
            raise OSError("it ended early")
        buffer = buffer[count:]


def open_file(path: Path | str) -> TensorFile:
    """Open a safetensors file, a pickle (.ckpt, .pt, .pth, .bin), or the .index.json of a sharded one.

    Raises ModelFileError for what is none of them, is damaged, or lacks a shard, and UnsafeCheckpointError for a pickle
    that names what tensors do not need.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(f"{path}: a folder; a file was expected here.")
    if not path.exists():
        raise ModelFileError(f"{path}: no such file.")
    if path.name.endswith(".json"):
        return open_index(path)
    return TensorFile([open_header(path)])


def open_header(path: Path) -> Header:
    """Return the header of one file; a pickle's is that of the safetensors file that it is converted to."""
    start = first_bytes(path)
    if is_pickle(start):
        return converted(path)
    if may_be_old_pickle(start):
        try:
            return converted(path)
        except UnsafeCheckpointError:
            raise
        except ModelFileError:
            log.debug("%s is no old pickle either", path)
    return read_header(path)


def open_index(path: Path) -> TensorFile:
    """Open the shards that an index names; each must lie beside it and hold what the index says."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelFileError(f"{path}: not the index of a sharded model: it has no weight_map.")
    for shard in places.values():
        if not isinstance(shard, str) or not is_plain_name(shard):
            raise ModelFileError(f"{path}: names the shard {shard!r}; shards are files beside the index.")
    names = sorted(set(places.values()))
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise ModelFileError(
            f"{path}: {len(missing)} of {len(names)} shards are missing, first {missing[0]!r}; download them too."
        )
    tensors = TensorFile([open_header(path.parent / name) for name in names])
    check_index(path, places, tensors)
    return tensors


def check_index(path: Path, places: Mapping[str, str], tensors: TensorFile) -> None:
    """Check that the index and its shards name the same tensors."""
    absent = sorted(set(places) - set(tensors))
    extra = sorted(set(tensors) - set(places))
    if absent or extra:
        first = repr((absent or extra)[0])
        raise ModelFileError(
            f"{path}: does not fit its shards: {len(absent)} tensors are in no shard and {len(extra)} are not in "
            f"the index, first {first}; the shards are of different models or versions."
        )


def is_plain_name(name: str) -> bool:
    """Say whether a name stays in its folder: no separator, no drive, no parent."""
    return bool(name) and name not in (".", "..") and not set(name) & set('/\\:\0"')


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a configuration file; raises ModelFileError naming the file."""
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise ModelFileError(f"{path}: larger than {JSON_LIMIT:,} bytes, too long for a configuration.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: should hold a JSON object and holds a {type(value).__name__}.")
    return value


def is_finite(tensor: Tensor) -> bool:
    """Say whether all numbers are finite.

    The sum is read once, at memory speed, and is not finite if any number is not. Only when it is not are the numbers
    looked at one by one, as a sum of large ones can overflow too.
    """
    if not tensor.is_floating_point():
        return True
    values = countable(tensor)
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())


def check_finite(name: str, tensor: Tensor, path: Path) -> None:
    """Raise ModelFileError, with their number, if some of a weight's numbers are not finite."""
    if not is_finite(tensor):
        bad = tensor.numel() - int(torch.isfinite(countable(tensor)).sum())
        raise ModelFileError(
            f"{path}: {bad:,} of {tensor.numel():,} numbers of {name!r} are not finite; the file is damaged or was "
            "saved from a broken training: use another version of it."
        )


def countable(tensor: Tensor) -> Tensor:
    """Return the tensor in a type that can be summed, which float8 cannot."""
    return tensor.float() if tensor.element_size() < 2 else tensor
