"""Any source as a set to train on: pictures looked at once, repeats and mirrors laid out, captions by draw."""

import hashlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sfumato.errors import ConfigError, DataError
from sfumato.images import to_pixels
from sfumato.train.data.buckets import Fit, Size, cover, fit
from sfumato.train.data.pixels import Seen, View, show, view
from sfumato.train.data.records import Group, Record, Source
from sfumato.train.data.samples import LeftOut
from sfumato.train.data.words import spoken

TOLERATED = 0.05  # share of the pictures that may be unreadable


class PictureSet:
    """The pictures of a source that can be read, numbered.

    A group's repeats follow each other. Where a group is mirrored at random, every repeat of every group is doubled and
    one of the two mirrored in that group: half of its samples are, exactly, and both kinds can be encoded once.
    """

    on_device = False

    def __init__(
        self,
        source: Source,
        size: int,
        found: Sequence[Seen | LeftOut],
        *,
        pool: int = 0,
        tolerated: float = TOLERATED,
    ) -> None:
        """The set of a source whose records have been looked at; `size` in pixels is the side of a square.

        Raises DataError if there are no pictures, too many are unreadable, or fewer than `pool`.
        """
        if not source.records:
            raise DataError(f"{source.where} holds no pictures.")
        self.source, self.size = source, size
        self.left_out: Sequence[LeftOut] = [each for each in found if isinstance(each, LeftOut)]
        refuse_unreadable(self.left_out, len(found), tolerated, source.where)
        self._records = [r for r, each in zip(source.records, found, strict=True) if isinstance(each, Seen)]
        self._seen = [each for each in found if isinstance(each, Seen)]
        if not self._seen:
            raise DataError(f"None of the {len(found)} pictures in {source.where} can be read.")
        self._lay_out(pool)
        self.varies = any(group.random_crop for group in source.groups)
        self.identity = self._identify()

    def _lay_out(self, pool: int) -> None:
        groups = self.source.groups
        copies = 2 if any(group.flip for group in groups) else 1
        repeats = np.array([groups[record.group].repeats * copies for record in self._records])
        self._picture = np.repeat(np.arange(len(self._records)), repeats)
        starts = np.repeat(np.cumsum(repeats) - repeats, repeats)
        flips = np.repeat([groups[record.group].flip for record in self._records], repeats)
        self._mirrored = flips & ((np.arange(len(self._picture)) - starts) % 2 == 1)
        self._first = starts + self._mirrored
        if pool > len(self._picture):
            raise DataError(f"data.pool is {pool}, but {self.source.where} holds {len(self._picture)} samples.")
        self.length = pool or len(self._picture)
        if not self.length:
            raise DataError(f"{self.source.where}: every picture is repeated 0 times.")

    def record(self, index: int) -> Record:
        """The record of a sample."""
        return self._records[int(self._picture[index])]

    def group(self, index: int) -> Group:
        """What holds for a sample."""
        return self.source.groups[self.record(index).group]

    def first_alike(self, index: int) -> int:
        return int(self._first[index])

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        return [
            spoken(self.record(index).captions or ("",), self.group(index).words, draw)
            for index, draw in zip(indices, draws, strict=True)
        ]

    def without_caption(self) -> list[str]:
        """The names of the pictures that have none."""
        return [record.name for record in self._records if not record.captions]

    def pictures(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        return self._shown(indices, draws, [cover(self.upright(i), (self.size, self.size)) for i in indices])

    def fit(self, index: int) -> Fit:
        """The bucket of a sample, and how it lies in it, by the rules of its group."""
        group = self.group(index)
        resolution = group.resolution or (self.size, self.size)
        if group.buckets is None:
            return cover(self.upright(index), resolution)
        return fit(self.upright(index), resolution, group.buckets)

    def view(self, index: int, draw: int | None = None, lies: Fit | None = None) -> View:
        """What is seen of a sample: in its bucket (or as `lies` says), at a random place if its group wants that."""
        draw = draw if self.group(index).random_crop else None
        return view(lies or self.fit(index), mirrored=bool(self._mirrored[index]), draw=draw)

    def bucket(self, index: int) -> Size:
        return self.fit(index).size

    def in_bucket(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        lies = [self.fit(index) for index in indices]
        sizes = {each.size for each in lies}
        if len(sizes) != 1:
            raise DataError(f"Samples of {len(sizes)} buckets were asked for together; a batch has one size.")
        return self._shown(indices, draws, lies)

    def upright(self, index: int) -> Size:
        """Width and height of a sample's whole picture."""
        return self._seen[int(self._picture[index])].size

    def _shown(self, indices: Sequence[int], draws: Sequence[int], lies: Sequence[Fit]) -> Tensor:
        chosen: Sequence[int | None] = draws or [None] * len(indices)
        views = [self.view(i, draw, each) for i, draw, each in zip(indices, chosen, lies, strict=True)]
        return to_pixels([show(self.record(index), each) for index, each in zip(indices, views, strict=True)])

    def _identify(self) -> str:
        digest = hashlib.sha256(repr((self.size, self.source.groups, self.length)).encode())
        for record, seen in zip(self._records, self._seen, strict=True):
            digest.update(seen.digest + bytes([record.group % 256]))
        return digest.hexdigest()


def refuse_unreadable(left_out: Sequence[LeftOut], count: int, tolerated: float, where: str) -> None:
    """Raises DataError if more than the tolerated share of the pictures cannot be read."""
    if not 0 <= tolerated <= 1:
        raise ConfigError(f"data.unreadable is {tolerated}; it is a share from 0 to 1.")
    if len(left_out) > tolerated * count:
        first = left_out[0]
        raise DataError(
            f"{len(left_out)} of {count} pictures in {where} cannot be read, more than {tolerated:.0%} "
            f"(data.unreadable). First {first.name}: {first.reason}. `sfumato data check` names all of them."
        )
