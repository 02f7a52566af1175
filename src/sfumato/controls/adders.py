"""Control networks in a run: what each has been shown, and when and how much of what it makes counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from sfumato.nn.additions import NOTHING, Additions, ImageTokens, UNetCall
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.ip_adapter import KeysAndValues


@dataclass(frozen=True)
class Span:
    """The noise levels at which something acts: low < sigma <= high."""

    low: float
    high: float

    def __contains__(self, sigma: object) -> bool:
        return isinstance(sigma, float) and self.low < sigma <= self.high


def span(sigmas: Sequence[float], start: float, end: float) -> Span | None:
    """The levels of the steps that lie whole between these parts of a run, 0 to 1; None if there is no such step.

    Step i of n counts if i / n >= start and (i + 1) / n <= end, as diffusers and A1111 count.
    """
    steps = len(sigmas) - 1
    kept = [step for step in range(steps) if step / steps >= start and (step + 1) / steps <= end]
    if not kept:
        return None
    first, last = kept[0], kept[-1] + 1
    return Span(-1.0 if last == steps else sigmas[last], float("inf") if first == 0 else sigmas[first])


@dataclass(frozen=True)
class ControlNetAdder:
    """A ControlNet, the embedded pictures that it sees [B, C, h, w], and the weight of each residual [B, R].

    The weights are on the CPU; the middle's is the last. Where all weights of a picture are 0 the network is not asked.
    """

    network: ControlNet
    seen: Tensor
    weights: Tensor
    span: Span

    def __getitem__(self, pictures: slice) -> Self:
        return replace(self, seen=self.seen[pictures], weights=self.weights[pictures])

    def joined(self, others: Sequence[Self]) -> Self:
        """This with the pictures of others after its own."""
        all_of_them = (self, *others)
        return replace(
            self,
            seen=torch.cat([each.seen for each in all_of_them]),
            weights=torch.cat([each.weights for each in all_of_them]),
        )

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """The embedded pictures there; the network is where it is."""
        return replace(self, seen=self.seen.to(device=device, dtype=dtype))

    def additions(self, call: UNetCall) -> Additions:
        """The residuals, each times its weight."""
        rows = self.weights.any(dim=1)
        if call.sigma not in self.span or not rows.any():
            return NOTHING
        if rows.all():
            return self._residuals(call, self.seen, self.weights)
        some = rows.nonzero().flatten().to(call.x.device)
        found = self._residuals(call[some], self.seen[some], self.weights[rows])
        assert found.middle is not None
        return Additions(tuple(spread(each, rows) for each in found.skips), spread(found.middle, rows))

    def _residuals(self, call: UNetCall, seen: Tensor, weights: Tensor) -> Additions:
        made = self.network(call.x, call.timestep, call.context, seen, call.pooled, call.size)
        *skips, middle = weighted((*made.skips, made.middle), weights)
        return Additions(skips=tuple(skips), middle=middle)


@dataclass(frozen=True)
class LevelsAdder:
    """What a T2I-Adapter made of pictures, a map [B, C, h, w] for each level, and the weight of each [B, L]."""

    maps: tuple[Tensor, ...]
    weights: Tensor
    span: Span

    def __getitem__(self, pictures: slice) -> Self:
        return replace(self, maps=tuple(each[pictures] for each in self.maps), weights=self.weights[pictures])

    def joined(self, others: Sequence[Self]) -> Self:
        """This with the pictures of others after its own."""
        all_of_them = (self, *others)
        return replace(
            self,
            maps=tuple(torch.cat(maps) for maps in zip(*(each.maps for each in all_of_them), strict=True)),
            weights=torch.cat([each.weights for each in all_of_them]),
        )

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """The maps there."""
        return replace(self, maps=tuple(each.to(device=device, dtype=dtype) for each in self.maps))

    def additions(self, call: UNetCall) -> Additions:
        """The maps, each times its weight."""
        if call.sigma not in self.span or not self.weights.any():
            return NOTHING
        return Additions(levels=weighted(self.maps, self.weights))


@dataclass(frozen=True)
class ImageAdder:
    """The tokens of pictures [B, n, C], the layers that make keys and values of them, and how much which counts."""

    layers: tuple[KeysAndValues, ...]
    tokens: Tensor
    weight: float
    span: Span
    masks: Mapping[int, Tensor] = field(default_factory=dict)

    def __getitem__(self, pictures: slice) -> Self:
        return replace(self, tokens=self.tokens[pictures])

    def joined(self, others: Sequence[Self]) -> Self:
        """This with the pictures of others after its own."""
        return replace(self, tokens=torch.cat([each.tokens for each in (self, *others)]))

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """The tokens and masks there; the layers are where they are."""
        masks = {cells: mask.to(device=device, dtype=dtype) for cells, mask in self.masks.items()}
        return replace(self, tokens=self.tokens.to(device=device, dtype=dtype), masks=masks)

    def additions(self, call: UNetCall) -> Additions:
        """The tokens, for the UNet's cross-attentions."""
        if call.sigma not in self.span:
            return NOTHING
        keys, values = zip(*((layer.to_k_ip, layer.to_v_ip) for layer in self.layers), strict=True)
        return Additions(images=(ImageTokens(self.tokens, keys, values, self.weight, self.masks),))


def weighted(maps: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """Maps [B, C, h, w], each picture's times its weight of [B, maps]."""
    columns = weights.to(maps[0]).unbind(1)
    return tuple(each * column[:, None, None, None] for each, column in zip(maps, columns, strict=True))


def spread(some: Tensor, rows: Tensor) -> Tensor:
    """The maps of some pictures among those of all; the others' are zero."""
    whole = some.new_zeros(len(rows), *some.shape[1:])
    whole[rows.to(some.device)] = some
    return whole
