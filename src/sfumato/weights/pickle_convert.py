"""A checkpoint's pickle -> a safetensors file, written in one pass over the mapped file. Nothing here imports torch."""

import json
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sfumato.errors import ModelFileError, UnsafeCheckpointError
from sfumato.weights.header import HEADER_LIMIT, ITEM_BYTES
from sfumato.weights.pickle_container import Unpacked, unpack
from sfumato.weights.pickle_tensors import Found, find_tensors
from sfumato.weights.pickle_values import Damaged, DenseTensor

ALIGNMENT = 64  # bytes, a cache line; the tensors begin at a multiple of it
PIECE = 1 << 24  # bytes gathered at a time
METADATA = "sfumato.pickle"  # the metadata key of what lay beside the tensors


def convert(path: Path, out: BinaryIO) -> None:
    """Write the tensors of a .ckpt, .pt, .pth or .bin file as safetensors, bit for bit.

    Raises UnsafeCheckpointError for a file that names what tensors do not need, ModelFileError for one that is damaged.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            unpacked = unpack(file, size)
            found = find_tensors(unpacked.value)
            check_total(found, size)
            order = sorted(found.tensors, key=lambda name: (-ITEM_BYTES[found.tensors[name].dtype], name))
            out.write(header_of(found, order))
            room = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
            for name in order:
                for piece in pieces(found.tensors[name], unpacked, room):
                    out.write(piece)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{path}: {error}", error.name) from error
    except Damaged as error:
        raise ModelFileError(f"{path}: a pickle that cannot be read: {error}.") from error
    except MemoryError as error:
        raise ModelFileError(f"{path}: a pickle that takes more memory than any model's does.") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read or converted: {error.strerror or error}") from error


def check_total(found: Found, size: int) -> None:
    """Raise Damaged if the tensors are much more than the file: views that repeat a few numbers a million times."""
    total = sum(math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype] for tensor in found.tensors.values())
    if total > 2 * size + 64 * 1024 * 1024:
        raise Damaged(f"its tensors are {total:,} bytes, repeated out of a file of {size:,}")


def header_of(found: Found, order: list[str]) -> bytes:
    """Return a safetensors header for tensors in this order."""
    beside = {"told": dict(found.told), "left_out": list(found.left_out)}
    table: dict[str, object] = {"__metadata__": {"format": "pt", METADATA: json.dumps(beside)}}
    position = 0
    for name in order:
        tensor = found.tensors[name]
        end = position + math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
        table[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    try:
        body = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Damaged("a tensor's name is no text") from error
    body += b" " * (-(8 + len(body)) % ALIGNMENT)
    if len(body) > HEADER_LIMIT:
        raise Damaged("its tensors' names are too long")
    return len(body).to_bytes(8, "little") + body


def pieces(tensor: DenseTensor, unpacked: Unpacked, room: memoryview) -> Iterator[bytes | memoryview]:
    """Yield a tensor's bytes in their order: as they lie where it is contiguous, else gathered in pieces."""
    count, item = math.prod(tensor.shape), ITEM_BYTES[tensor.dtype]
    if not count:
        return
    start = unpacked.places[tensor.storage.key] + tensor.offset * item
    if is_contiguous(tensor):
        for first in range(start, start + count * item, PIECE):
            yield room[first : min(first + PIECE, start + count * item)]
        return
    kind = np.dtype(f"V{item}")
    last = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    flat = np.frombuffer(room, dtype=kind, count=last, offset=start)
    view = np.lib.stride_tricks.as_strided(
        flat, tensor.shape, tuple(stride * item for stride in tensor.strides), writeable=False
    )
    rows = max(1, PIECE // (count // tensor.shape[0] * item))
    for row in range(0, tensor.shape[0], rows):
        yield view[row : row + rows].tobytes()


def is_contiguous(tensor: DenseTensor) -> bool:
    """Say whether a tensor's numbers lie one after the other, in its own order."""
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
