"""Adapters that add to a weight W, beyond LoRA, and DoRA over any: as LyCORIS, kohya's trainer and peft know them.

They are merged, not attached. At another weight than 1 each is that part of the way from W to what it makes of it. The
formulas are checked against those libraries. Yeh et al. 2023 (LyCORIS); Hyeon-Woo et al. 2021 (LoHa); Liu et al. 2024
(DoRA). `orthogonal.py` has those that turn and scale W.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.nn.change import Change, Changeable

Side = Literal["outputs", "inputs"]


def demand(right: bool, what: str, *tensors: Tensor) -> None:
    """Raise ValueError, with the shapes that were found, unless it is right."""
    if not right:
        raise ValueError(f"{', '.join(str(list(tensor.shape)) for tensor in tensors)} are not {what}")


def along(values: Tensor, axis: int, like: Tensor) -> Tensor:
    """Values for each place on one axis of a tensor, in its type and as many dimensions."""
    return values.to(like).view([-1 if each == axis else 1 for each in range(like.ndim)])


def flat(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many outputs a weight has, and how many numbers each."""
    return shape[0], math.prod(shape[1:])


def rebuilt(core: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """A kernel [out, in, k, k] of its Tucker decomposition: core [r, s, k, k], outputs [r, out], inputs [s, in]."""
    return torch.einsum("rskl,ro,si->oikl", core.float(), outputs.float(), inputs.float())


class KeepsBias:
    """What leaves the bias as it is."""

    @property
    def changes_bias(self) -> bool:
        """Does the layer's bias become another?"""
        return False

    def changed_bias(self, bias: Tensor) -> Tensor:
        """The same bias."""
        return bias


class Added(KeepsBias, ABC):
    """W + scale * D, for a D that is made of smaller tensors."""

    scale: float

    @abstractmethod
    def difference(self) -> Tensor:
        """D, in any shape of as many numbers as the weight, its first axis the weight's."""

    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of D."""

    def fits(self, layer: Changeable) -> bool:
        """Is D as large as the layer's weight?"""
        return flat(self.shape()) == flat(tuple(layer.weight.shape))

    def changed(self, weight: Tensor) -> Tensor:
        """W + scale * D."""
        return weight + self.difference().to(weight).view(weight.shape) * self.scale


@dataclass(frozen=True)
class Tucker(Added):
    """LoCon with a core: `down` [r, in, 1, 1], `mid` [r, r, k, k], `up` [out, r, 1, 1]."""

    down: Tensor
    mid: Tensor
    up: Tensor
    scale: float

    def __post_init__(self) -> None:
        down, mid, up = self.down, self.mid, self.up
        demand(down.ndim == mid.ndim == up.ndim == 4, "down, mid and up of a convolution", down, mid, up)
        demand(mid.shape[:2] == (up.shape[1], down.shape[0]), "a core that joins down and up", down, mid, up)
        demand(down.shape[2:] == up.shape[2:] == (1, 1), "a down and an up of 1x1", down, up)

    def shape(self) -> tuple[int, ...]:
        """The shape of D."""
        return self.up.shape[0], self.down.shape[1], *self.mid.shape[2:]

    def difference(self) -> Tensor:
        """The kernel of the three convolutions in a row."""
        return rebuilt(self.mid, self.up.flatten(1).T, self.down.flatten(1))


@dataclass(frozen=True)
class Generalised(KeepsBias):
    """GLoRA: W becomes W + scale * (W A + B), with A = a1 a2 over its inputs and B = b1 b2, both of low rank.

    `a1` [in, r], `a2` [r, in], `b1` [out, r], `b2` [r, in] or [r, in, k, k], those of convolutions with 1x1 behind.
    Chavan et al. 2023.
    """

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    scale: float

    def __post_init__(self) -> None:
        four = (self.a1, self.a2, self.b1, self.b2)
        demand(all(each.ndim in (2, 4) for each in four), "matrices or convolutions", *four)
        inputs = self.b2.shape[1]
        right = self.a1.shape[0] == self.a2.shape[1] == inputs and self.a1.shape[1] == self.a2.shape[0]
        narrow = all(size == 1 for each in four[:3] for size in each.shape[2:])
        demand(right and narrow and self.b1.shape[1] == self.b2.shape[0], "two pairs of low rank", *four)

    def fits(self, layer: Changeable) -> bool:
        """Are A and B for a weight of this shape?"""
        shape = tuple(layer.weight.shape)
        whole = (self.b1.shape[0], *self.b2.shape[1:])
        return len(shape) > 1 and flat(whole) == flat(shape) and self.b2.shape[1] == shape[1]

    def changed(self, weight: Tensor) -> Tensor:
        """W + scale * (W A + B)."""
        a1, a2, b1, b2 = (each.to(weight).flatten(1) for each in (self.a1, self.a2, self.b1, self.b2))
        inside = torch.einsum("oi...,ir,rj->oj...", weight, a1, a2)
        return weight + (inside + (b1 @ b2).view(weight.shape)) * self.scale


@dataclass(frozen=True)
class Pair:
    """A matrix [out, in] of low rank, a [out, r] times b [r, in]; with a core [r, r, k, k] a kernel, a and b [r, n]."""

    a: Tensor
    b: Tensor
    core: Tensor | None = None

    def __post_init__(self) -> None:
        a, b, core = self.a, self.b, self.core
        if core is None:
            demand(a.ndim == 2 and b.ndim in (2, 4) and a.shape[1] == b.shape[0], "a pair of one rank", a, b)
        else:
            joins = core.ndim == 4 and core.shape[:2] == (a.shape[0], b.shape[0])
            demand(a.ndim == b.ndim == 2 and joins, "a core that joins its pair", core, a, b)

    @property
    def rank(self) -> int:
        """The rank."""
        return len(self.b)

    def shape(self) -> tuple[int, ...]:
        """The shape of the product."""
        if self.core is not None:
            return self.a.shape[1], self.b.shape[1], *self.core.shape[2:]
        return self.a.shape[0], *self.b.shape[1:]

    def product(self) -> Tensor:
        """The product."""
        if self.core is not None:
            return rebuilt(self.core, self.a, self.b)
        return (self.a.float() @ self.b.float().flatten(1)).view(self.shape())


@dataclass(frozen=True)
class Hadamard(Added):
    """LoHa: D is the product, number by number, of two of low rank."""

    one: Pair
    other: Pair
    scale: float

    def __post_init__(self) -> None:
        one, other = self.one, self.other
        demand(one.shape() == other.shape(), "two factors of one size", one.a, one.b, other.a, other.b)

    def shape(self) -> tuple[int, ...]:
        """The shape of D."""
        return self.one.shape()

    def difference(self) -> Tensor:
        """The product of the factors."""
        return self.one.product() * self.other.product()


@dataclass(frozen=True)
class Kronecker(Added):
    """LoKr: D is the Kronecker product of a small matrix and a larger one or kernel, each whole or of low rank."""

    one: Tensor | Pair
    other: Tensor | Pair
    scale: float

    def __post_init__(self) -> None:
        for part in (self.one, self.other):
            if isinstance(part, Tensor):
                demand(part.ndim in (2, 4), "a matrix or a kernel", part)

    def shape(self) -> tuple[int, ...]:
        """The shape of D."""
        one, other = (
            list(part.shape) if isinstance(part, Tensor) else list(part.shape()) for part in (self.one, self.other)
        )
        one += [1] * (len(other) - len(one))
        return tuple(first * second for first, second in zip(one, other, strict=False))

    def difference(self) -> Tensor:
        """The Kronecker product."""
        one, other = (part.float() if isinstance(part, Tensor) else part.product() for part in (self.one, self.other))
        return torch.kron(one.view(*one.shape, *[1] * (other.ndim - one.ndim)), other.contiguous())


@dataclass(frozen=True)
class Whole:
    """W + D, and the bias + d, for D and d as large as they are."""

    difference: Tensor | None
    bias: Tensor | None = None

    @property
    def changes_bias(self) -> bool:
        """Is there a d?"""
        return self.bias is not None

    def fits(self, layer: Changeable) -> bool:
        """Are both as large as the layer's?"""
        weight = self.difference is None or flat((*self.difference.shape, 1)) == flat((*layer.weight.shape, 1))
        return weight and (self.bias is None or (layer.bias is not None and self.bias.shape == layer.bias.shape))

    def changed(self, weight: Tensor) -> Tensor:
        """W + D."""
        return weight if self.difference is None else weight + self.difference.to(weight).view(weight.shape)

    def changed_bias(self, bias: Tensor) -> Tensor:
        """The bias + d."""
        return bias if self.bias is None else bias + self.bias.to(bias)


@dataclass(frozen=True)
class Decomposed(KeepsBias):
    """DoRA: another adapter's weight with magnitudes of its own, one for each output or for each input."""

    inner: Change
    magnitude: Tensor
    side: Side = "outputs"

    def fits(self, layer: Changeable) -> bool:
        """Does the other adapter fit, and is there a magnitude for each?"""
        axis = 0 if self.side == "outputs" else 1
        return self.inner.fits(layer) and self.magnitude.numel() == layer.weight.shape[axis]

    def changed(self, weight: Tensor) -> Tensor:
        """The other's weight over its norms, times the magnitudes. Liu et al. 2024, equation 5."""
        whole = self.inner.changed(weight)
        axis = 0 if self.side == "outputs" else 1
        others = [each for each in range(whole.ndim) if each != axis]
        norm: Tensor = torch.linalg.vector_norm(whole, dim=others, keepdim=True)
        norm = norm.clamp_min(torch.finfo(whole.dtype).tiny)
        return whole * (along(self.magnitude.flatten(), axis, whole) / norm)
