"""Pictures that are read once and stay in the device's memory."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.train.ahead import ahead, count_workers, in_chunks
from sfumato.train.config import RunConfig
from sfumato.train.data.buckets import Size
from sfumato.train.data.samples import Samples

log = logging.getLogger(__name__)

CHUNK = 32  # pictures read at a time


class Kept:
    """The first `count` samples of a set, whose pictures are on the device in 8 bits: in steps of 1/127.5.

    Pictures come from there, and are there; a picture that several samples show is kept once. Captions are the set's.
    """

    varies = False
    on_device = True

    def __init__(self, samples: Samples, count: int, run: RunConfig, device: torch.device) -> None:
        self.samples, self.length, self.left_out = samples, samples.length, samples.left_out
        self.identity = f"{samples.identity} in 8 bits"
        distinct: dict[Size, dict[int, int]] = {}
        for index in range(count):
            first = samples.first_alike(index)
            rows = distinct.setdefault(samples.bucket(first), {})
            rows.setdefault(first, len(rows))
        self.rows = distinct
        self.levels: dict[Size, Tensor] = {}
        for (width, height), rows in distinct.items():
            held = torch.empty(len(rows), 3, height, width, dtype=torch.uint8, device=device)
            order = list(rows)
            for number, levels in enumerate(ahead(self._read, in_chunks(order, CHUNK), count_workers(run, device))):
                held[number * CHUNK :][: len(levels)] = levels.to(device)
                if number % 64 == 0:
                    log.info("Read %d of %d pictures.", number * CHUNK, len(order))
            self.levels[width, height] = held

    def _read(self, indices: Sequence[int]) -> Tensor:
        return ((self.samples.in_bucket(indices) + 1) * 127.5).round_().to(torch.uint8)

    def pictures(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        return self.samples.pictures(indices, draws)

    def bucket(self, index: int) -> Size:
        return self.samples.bucket(index)

    def in_bucket(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        bucket = self.bucket(indices[0])
        rows = [self.rows[bucket][self.first_alike(index)] for index in indices]
        held = self.levels[bucket]
        return held[torch.tensor(rows, device=held.device)].float() / 127.5 - 1

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        return self.samples.captions(indices, draws)

    def first_alike(self, index: int) -> int:
        return self.samples.first_alike(index)
