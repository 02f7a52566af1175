"""Safetensors files written by hand: wrong ones, and full-size ones that take no room on the disk."""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.weights.families import Blueprint
from sfumato.weights.header import ITEM_BYTES
from sfumato.weights.naming import their_shapes
from sfumato.weights.single import (
    autoencoder_component,
    text_component,
    text_prefixes,
    unet_component,
)

__all__ = ["entry", "single_file_shapes", "table_of", "write_raw", "write_sparse"]

Shapes = Mapping[str, tuple[int, ...]]


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    """One line of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def table_of(shapes: Shapes, dtype: str = "F16", metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A right header for tensors of these shapes."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * ITEM_BYTES[dtype]
        table[name] = entry(dtype, list(shape), position, end)
        position = end
    return table


def write_raw(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file with this header (an object, or its bytes), a stated length, and these data."""
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body) if length is None else length) + body + data)
    return path


def write_sparse(path: Path, shapes: Shapes, dtype: str = "F16", metadata: Mapping[str, str] | None = None) -> Path:
    """A file of zeros with tensors of these shapes; its data are a hole that takes no room on the disk."""
    table = table_of(shapes, dtype, metadata)
    write_raw(path, table)
    size = max(value["data_offsets"][1] for name, value in table.items() if name != "__metadata__")
    os.truncate(path, path.stat().st_size + size)
    return path


def single_file_shapes(build: Blueprint) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a single file of a family, without anything beside the networks."""
    nothing: Any = {}
    parts = [
        unet_component(Path(), build.unet, nothing, ema=False).part,
        autoencoder_component(Path(), build.autoencoder, nothing).part,
    ]
    prefixes = text_prefixes(build.family.text)
    parts += [
        text_component(Path(), each, prefix, nothing).part for each, prefix in zip(build.text, prefixes, strict=True)
    ]
    shapes: dict[str, tuple[int, ...]] = {}
    for part in parts:
        shapes.update(their_shapes(part.naming, part.network.state_dict()))
    return shapes
