"""Pictures that are the same, or nearly: by their bytes, and by a print of what they look like."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

BITS_APART = 3  # of 64: what scaling and JPEG change of a picture's print; 4 bands of 16 bits find all such pairs
LEVELS_APART = 10.0  # of 255, the mean over an 8x8 thumbnail: the same shapes in other colours are another picture
THUMB = 8

Bits = np.ndarray[tuple[int], np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Print:
    """A picture's difference hash (64 bits) and its 8x8 thumbnail, RGB bytes."""

    bits: int
    thumb: bytes


def thumbprint(picture: Image.Image) -> Print:
    """The print of an RGB picture: whether each cell of a 9x8 grey thumbnail is brighter than the one to its right.

    Neal Krawetz's dHash, 2013.
    """
    grey = np.asarray(picture.convert("L").resize((THUMB + 1, THUMB), Image.Resampling.BOX)).astype(np.int16)
    bits = np.packbits(grey[:, :-1] > grey[:, 1:])
    thumb = picture.resize((THUMB, THUMB), Image.Resampling.BOX)
    return Print(int.from_bytes(bits.tobytes(), "big"), thumb.tobytes())


def same_bytes(digests: Sequence[bytes]) -> list[tuple[int, ...]]:
    """The groups of two and more whose files have the same bytes, by their places in the sequence."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for at, digest in enumerate(digests):
        groups[digest].append(at)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def near_pairs(prints: Sequence[Print]) -> Iterator[tuple[int, int]]:
    """Pairs of places, the lower first, whose prints differ in at most 3 bits and whose thumbnails look alike.

    Two of 64 bits that differ in at most 3 agree in one of four bands of 16: only those are compared.
    """
    bits = np.array([each.bits for each in prints], dtype=np.uint64)
    thumbs = np.array([np.frombuffer(each.thumb, np.uint8) for each in prints]).astype(np.int16)
    for band in range(4):
        shift = np.uint64(16 * band)
        part = (bits >> shift) & np.uint64(0xFFFF)
        order = np.argsort(part, kind="stable")
        edges = np.flatnonzero(np.diff(part[order])) + 1
        for members in np.split(order, edges):
            yield from _within(members, bits, thumbs, band)


def _within(
    members: "np.ndarray[tuple[int], np.dtype[np.intp]]",
    bits: Bits,
    thumbs: "np.ndarray[tuple[int, int], np.dtype[np.int16]]",
    band: int,
) -> Iterator[tuple[int, int]]:
    """The near pairs among pictures that agree in a band, but for those that an earlier band has found."""
    members = np.sort(members)
    for at, one in enumerate(members[:-1]):
        others = members[at + 1 :]
        apart = bits[others] ^ bits[one]
        near = others[_ones(apart) <= BITS_APART]
        near = near[np.abs(thumbs[near] - thumbs[one]).mean(axis=1) <= LEVELS_APART]
        for other in near:
            differing = int(bits[one] ^ bits[other])
            if all(differing >> 16 * earlier & 0xFFFF for earlier in range(band)):
                yield int(one), int(other)


def _ones(values: Bits) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """How many bits are set in each value."""
    bits = np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1)
    ones: np.ndarray[tuple[int], np.dtype[np.int64]] = bits.sum(axis=1, dtype=np.int64)
    return ones
