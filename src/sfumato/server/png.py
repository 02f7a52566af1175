"""A PNG file from raw pixels, written as they come: whatever their size, a few rows are in memory."""

import struct
import zlib
from collections.abc import Iterable, Iterator

COLOUR_TYPES = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}  # PNG 1.2, section 4.1.1
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def encode(width: int, height: int, mode: str, rows: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a PNG file of 8 bits a channel. `rows` are `height` times `width` pixels."""
    yield b"\x89PNG\r\n\x1a\n"
    yield chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[mode], 0, 0, 0))
    packer = zlib.compressobj(3)
    for row in rows:
        packed = packer.compress(b"\0" + row)  # filter 0: as it is
        if packed:
            yield chunk(b"IDAT", packed)
    yield chunk(b"IDAT", packer.flush())
    yield chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
