"""What other networks add inside a UNet's call: ControlNets to its skips, T2I-Adapters to its levels, pictures' tokens.

One value for all of them, so that the UNet has one seam, and several networks act together by addition.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol, Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageTokens:
    """A picture that the cross-attentions look at beside the words. Ye et al. 2023 (IP-Adapter), equation 5.

    `tokens` [B, n, C]; `keys` and `values`: for each cross-attention of the UNet, in the order of `Attention.place`,
    the layer that makes its keys and values from them; `weight` multiplies what is found. `masks`: for a feature map of
    so many cells, how much each counts, [1, cells, 1]; without an entry all count whole.
    """

    tokens: Tensor
    keys: Sequence[nn.Module]
    values: Sequence[nn.Module]
    weight: float
    masks: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a UNet's cross-attentions look at: words [B, L, C], and pictures."""

    words: Tensor
    images: tuple[ImageTokens, ...] = ()


@dataclass(frozen=True)
class Additions:
    """What is added to a UNet's feature maps in one call.

    `skips`: for each map that the way down leaves, and `middle`: for what the lowest level makes (ControlNet; Zhang et
    al. 2023). `levels`: for the last map of each level on the way down, the one after these for the lowest level
    (T2I-Adapter; Mou et al. 2023). Each is as large as its map, or has one cell for all. `images`: see `ImageTokens`.
    """

    skips: tuple[Tensor, ...] = ()
    middle: Tensor | None = None
    levels: tuple[Tensor, ...] = ()
    images: tuple[ImageTokens, ...] = ()

    def __add__(self, other: "Additions") -> "Additions":
        """Both together."""
        return Additions(
            summed(self.skips, other.skips),
            plus(self.middle, other.middle),
            summed(self.levels, other.levels),
            self.images + other.images,
        )


NOTHING = Additions()


def together(additions: Iterable[Additions]) -> Additions:
    """All of them as one."""
    return sum(additions, NOTHING)


@dataclass(frozen=True)
class UNetCall:
    """What a UNet is called with: the scaled latents x [B, C, h, w], without mask and masked picture, and the rest.

    `sigma` is the noise level of x before it was scaled.
    """

    x: Tensor
    timestep: Tensor
    sigma: float
    context: Tensor
    pooled: Tensor | None
    size: Tensor | None

    def __getitem__(self, rows: Tensor) -> "UNetCall":
        """That of some of the pictures."""
        pooled, size = (None if each is None else each[rows] for each in (self.pooled, self.size))
        return UNetCall(self.x[rows], self.timestep[rows], self.sigma, self.context[rows], pooled, size)


class Adder(Protocol):
    """Another network, what it has been shown for each of B pictures, and when and how much of it counts."""

    def __getitem__(self, pictures: slice) -> Self:
        """That of some of the pictures."""

    def joined(self, others: Sequence[Self]) -> Self:
        """This with the pictures of others of the same network after its own."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """The same on a device and in a precision."""

    def additions(self, call: UNetCall) -> Additions:
        """What it adds in this call."""


def summed(these: Sequence[Tensor], those: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Sums place by place; where only one side has something, that."""
    sums = (plus(this, that) for this, that in zip_longest(these, those))
    return tuple(each for each in sums if each is not None)


def plus(this: Tensor | None, that: Tensor | None) -> Tensor | None:
    """The sum of what is there."""
    if this is None or that is None:
        return that if this is None else this
    return this + that
