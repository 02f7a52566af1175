"""What an adapter makes of one layer: another weight, and perhaps another bias."""

from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

Layer: TypeAlias = nn.Linear | nn.Conv2d
Changeable: TypeAlias = Layer | nn.GroupNorm | nn.LayerNorm


class Change(Protocol):
    """The change of one layer. Its tensors are kept as they are given."""

    @property
    def changes_bias(self) -> bool:
        """Does the layer's bias become another?"""

    def fits(self, layer: Changeable) -> bool:
        """Can this be done to the layer?"""

    def changed(self, weight: Tensor) -> Tensor:
        """The weight at full strength, from a weight in floating point that it fits; a new tensor."""

    def changed_bias(self, bias: Tensor) -> Tensor:
        """The bias at full strength; the same where `changes_bias` says no."""


def changeable(network: nn.Module) -> dict[str, Changeable]:
    """The layers that an adapter can change, by their paths: linear ones, convolutions and norms with a weight."""
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    return {
        path: layer
        for path, layer in network.named_modules()
        if isinstance(layer, kinds) and isinstance(layer.weight, nn.Parameter)
    }


def partly(before: Tensor, after: Tensor, factor: float) -> Tensor:
    """A part of the way from one tensor to another, or beyond: what any kind of adapter is at another weight than 1."""
    return after if factor == 1 else torch.lerp(before, after, factor)
