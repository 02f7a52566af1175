"""What a recipe trains on: a numbered set of pictures with captions; and the drawn world as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from sfumato.scenes.captions import Caption, caption
from sfumato.scenes.render import render
from sfumato.scenes.scene import Scene, scene
from sfumato.train.config import DataConfig
from sfumato.train.data.buckets import Size

SHOWN_OF = 256  # samples that those of a contact sheet are taken from


@dataclass(frozen=True)
class LeftOut:
    """A picture that cannot be read, and why."""

    name: str
    reason: str


class Samples(Protocol):
    """A numbered set of pictures with captions. `length` 0 is endless.

    `identity` changes when any picture does, or how it is cut; empty where the configuration says it all. `varies` says
    that `draws` change how a sample looks. `on_device` says that pictures are where the networks are, and quick to get.
    `left_out` are the pictures that could not be read.
    """

    length: int
    identity: str
    varies: bool
    on_device: bool
    left_out: Sequence[LeftOut]

    def pictures(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        """Pictures [B, 3, size, size] in [-1, 1], float32, on the CPU unless `on_device`.

        `draws` (any integers) choose where samples that vary are cut; without them it is the middle.
        """
        ...

    def bucket(self, index: int) -> Size:
        """Width and height that a sample has in its bucket."""
        ...

    def in_bucket(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        """As `pictures`, cut as their bucket says, [B, 3, height, width]. Raises DataError for several buckets."""
        ...

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        """A caption of each; where there are several, or words are shuffled or dropped, `draws` (integers) choose."""
        ...

    def first_alike(self, index: int) -> int:
        """The lowest index whose picture is the same, so that repeats need to be encoded only once."""
        ...


@runtime_checkable
class Sampled(Protocol):
    """What has samples: every recipe but those that draw their own pictures."""

    samples: Samples


class World:
    """Scenes of the drawn world, number by number."""

    identity = ""
    varies = False
    on_device = False
    left_out: Sequence[LeftOut] = ()

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.length = config.pool
        self.held: Sequence[Scene] = ()  # the first scenes, where they are drawn once for all

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """The scenes themselves, for recipes that are taught more than pictures and words."""
        return [self.held[index] if index < len(self.held) else self._drawn(index) for index in indices]

    def _drawn(self, index: int) -> Scene:
        return scene(self.config.seed, index, counts=self.config.counts)

    def pictures(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        return render(self.scenes(indices), self.config.size)

    def bucket(self, index: int) -> Size:
        return self.config.size, self.config.size

    def in_bucket(self, indices: Sequence[int], draws: Sequence[int] = ()) -> Tensor:
        return self.pictures(indices, draws)

    def described(self, scenes: Sequence[Scene], draws: Sequence[int]) -> list[Caption]:
        """Captions with what they claim."""
        natural = self.config.natural
        return [
            caption(drawn, np.random.default_rng(draw), natural=natural)
            for drawn, draw in zip(scenes, draws, strict=True)
        ]

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        return [described.text for described in self.described(self.scenes(indices), draws)]

    def first_alike(self, index: int) -> int:
        return index


def shown(samples: Samples, count: int) -> list[int]:
    """The indices that a contact sheet shows: the first `count` of one size, again where there are fewer.

    The size is the commonest among the first samples.
    """
    if not samples.length:
        return list(range(count))
    looked_at = range(min(samples.length, SHOWN_OF))
    sizes = [samples.bucket(index) for index in looked_at]
    common = max(sizes, key=sizes.count)
    alike = [index for index in looked_at if sizes[index] == common]
    return [alike[at % len(alike)] for at in range(count)]
