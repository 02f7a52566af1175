"""A safetensors file written tensor by tensor: never more than one of them is in memory."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import OutputError
from sfumato.weights.files import DTYPES, is_finite

NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 64  # bytes, a cache line; the tensors begin at a multiple of it
Outline = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Each tensor's type and shape, by its name."""


def write_stream(
    path: Path,
    outline: Outline,
    produce: Callable[[str], Tensor],
    metadata: Mapping[str, str],
    *,
    told: Callable[[int, int], None] | None = None,
) -> None:
    """Write tensors as `produce` gives them, one by one, the widest types first; `told` hears how many are done.

    Raises OutputError if the file cannot be written or a number is not finite.
    """
    order = sorted(outline, key=lambda name: (-outline[name][0].itemsize, name))
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in order:
        dtype, shape = outline[name]
        end = position + math.prod(shape) * dtype.itemsize
        table[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for number, name in enumerate(order):
                file.write(bytes_of(path, name, produce(name), outline))
                if told is not None:
                    told(number + 1, len(order))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def bytes_of(path: Path, name: str, tensor: Tensor, outline: Outline) -> memoryview:
    """Return a tensor's bytes. Raises OutputError if a number is not finite in the type that is written."""
    dtype, shape = outline[name]
    assert tensor.dtype == dtype and tuple(tensor.shape) == tuple(shape), f"{name}: {tensor.dtype} {tensor.shape}"
    if not is_finite(tensor):
        raise OutputError(f"{path}: weight {name!r} is not finite in {dtype}; use bfloat16 or float32.")
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data
