"""Adapters that turn or scale a weight W: OFT, BOFT and (IA)^3, as LyCORIS, kohya's trainer and peft know them.

They are merged, not attached. At another weight than 1 each is that part of the way from W to what it makes of it.
Qiu et al. 2023 (OFT); Liu et al. 2023 (BOFT); Liu et al. 2022 ((IA)^3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.nn.change import Changeable
from sfumato.nn.lycoris import KeepsBias, Side, along, demand, flat


def antisymmetric(blocks: Tensor, largest: float) -> Tensor:
    """The matrices less their transposes, all of them together scaled to a norm of at most `largest`, 0 for any."""
    q = blocks - blocks.mT
    norm = float(q.norm())
    return q * (largest / norm) if 0 < largest < norm else q


def rotations(q: Tensor, terms: int | None = None) -> Tensor:
    """Cayley's rotations (1 + q) (1 - q)^-1 of antisymmetric matrices [..., b, b].

    `terms`: so many terms of their series instead, the last one halved, as peft's default has it.
    """
    one = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    if terms is None:
        turn: Tensor = (one + q) @ torch.linalg.inv(one - q)
        return turn
    terms = 4 if terms == 3 else terms  # peft has the same for both
    turn, power = one.expand_as(q), q
    for term in range(1, terms):
        turn = turn + power * (1.0 if 2 < terms == term + 1 else 2.0)
        power = power @ q
    return turn


@dataclass(frozen=True)
class Rotated(KeepsBias):
    """OFT: the weight's outputs turned in blocks, and perhaps each scaled.

    `blocks` [n, b, b] of any matrices: each turn is Cayley's of its antisymmetric part, all of whose norm is at most
    `alpha` times the number of outputs, 0 for any.
    """

    blocks: Tensor
    alpha: float = 0.0
    rescale: Tensor | None = None

    def __post_init__(self) -> None:
        demand(self.blocks.ndim == 3 and self.blocks.shape[1] == self.blocks.shape[2], "square blocks", self.blocks)

    def fits(self, layer: Changeable) -> bool:
        """Are there as many rows as the layer has outputs?"""
        outputs = layer.weight.shape[0]
        scaled = self.rescale is None or self.rescale.numel() == outputs
        return self.blocks.shape[0] * self.blocks.shape[1] == outputs and scaled and layer.weight.ndim > 1

    def changed(self, weight: Tensor) -> Tensor:
        """R^T W, each row times its scale."""
        turn = rotations(antisymmetric(self.blocks.to(weight), self.alpha * weight.shape[0]))
        rows = weight.reshape(*turn.shape[:2], -1)
        return _rescaled(torch.einsum("nij,nik->njk", turn, rows).reshape(weight.shape), self.rescale)


@dataclass(frozen=True)
class RotatedInputs(KeepsBias):
    """OFT as peft has it: the weight's inputs turned in blocks, by the antisymmetric matrices q [n, b, b].

    One block may serve for all. `terms` is as in `rotations`.
    """

    q: Tensor
    terms: int | None = None

    def fits(self, layer: Changeable) -> bool:
        """Are there as many columns as the layer has inputs, or one block for all?"""
        inputs = flat(tuple(layer.weight.shape))[1]
        count, block = self.q.shape[:2]
        return layer.weight.ndim > 1 and (count * block == inputs or (count == 1 and inputs % block == 0))

    def changed(self, weight: Tensor) -> Tensor:
        """W R^T; peft's q has the other sign, where it is not a series."""
        q = self.q.to(weight)
        turn = rotations(-q) if self.terms is None else rotations(q, self.terms)
        rows = weight.reshape(weight.shape[0], -1, turn.shape[-1])
        turn = turn.expand(rows.shape[1], -1, -1)
        return torch.einsum("nij,onj->oni", turn, rows).reshape(weight.shape)


@dataclass(frozen=True)
class Butterfly(KeepsBias):
    """BOFT as LyCORIS has it: outputs turned in blocks [m, n, b, b], m times over, shuffled between as in an FFT."""

    blocks: Tensor
    alpha: float = 0.0
    rescale: Tensor | None = None

    def __post_init__(self) -> None:
        levels, count, size, other = self.blocks.shape if self.blocks.ndim == 4 else (0, 0, 1, 0)
        even = size == other and size % 2 == 0 and 1 <= levels <= 32 and count % 2 ** max(levels - 1, 0) == 0
        demand(even, "even square blocks for each level", self.blocks)

    def fits(self, layer: Changeable) -> bool:
        """Are there as many rows as the layer has outputs?"""
        outputs = layer.weight.shape[0]
        scaled = self.rescale is None or self.rescale.numel() == outputs
        return self.blocks.shape[1] * self.blocks.shape[2] == outputs and scaled and layer.weight.ndim > 1

    def changed(self, weight: Tensor) -> Tensor:
        """The outputs turned at each level, between those of half a block's distance, twice as far each time."""
        turns = rotations(antisymmetric(self.blocks.to(weight), self.alpha * weight.shape[0]))
        size, rows = turns.shape[2], weight.flatten(1)
        for level, turn in enumerate(turns):
            apart = 2**level * (size // 2)
            rows = rows.reshape(-1, 2, apart, rows.shape[1]).transpose(1, 2).reshape(-1, size, rows.shape[1])
            rows = torch.einsum("nij,njk->nik", turn, rows)
            rows = rows.reshape(-1, apart, 2, rows.shape[2]).transpose(1, 2).reshape(-1, rows.shape[2])
        return _rescaled(rows.reshape(weight.shape), self.rescale)


@dataclass(frozen=True)
class ButterflyInputs(KeepsBias):
    """BOFT as peft has it: inputs turned in blocks [m, n, b, b], m times over, and each output scaled.

    Level i turns, in each 2^i blocks, what lies an even number of half blocks from their beginning before what lies an
    odd one. `scale` has a number for each output.
    """

    blocks: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        levels, count, size, other = self.blocks.shape if self.blocks.ndim == 4 else (0, 0, 1, 0)
        shuffled = levels == 1 or (size % 2 == 0 and count % 2 ** (levels - 1) == 0)
        demand(size == other and 1 <= levels <= 32 and shuffled, "square blocks for each level", self.blocks)

    def fits(self, layer: Changeable) -> bool:
        """Are there as many columns as the layer has inputs, and a scale for each output?"""
        outputs, inputs = flat(tuple(layer.weight.shape))
        whole = self.blocks.shape[1] * self.blocks.shape[2] == inputs
        return layer.weight.ndim > 1 and whole and self.scale.numel() == outputs

    def changed(self, weight: Tensor) -> Tensor:
        """s W B^T, where B turns at each level: B = P R P^T. Liu et al. 2023, equation 4; Cayley as peft has it."""
        skew = (self.blocks - self.blocks.mT).to(weight) / 2
        turns = rotations(-skew)
        columns = weight.flatten(1)
        size = turns.shape[-1]
        for level, turn in enumerate(turns):
            order = self._order(level, columns.shape[1]).to(weight.device)
            inside = torch.empty_like(columns)
            inside[:, order] = columns
            inside = torch.einsum("onj,nij->oni", inside.view(len(columns), -1, size), turn).flatten(1)
            columns = inside[:, order]
        return _rescaled(columns.reshape(weight.shape), self.scale)

    def _order(self, level: int, inputs: int) -> Tensor:
        """Where each input is taken from: half blocks, the even ones of each 2^level blocks before the odd ones."""
        if len(self.blocks) == 1:
            return torch.arange(inputs)
        half = self.blocks.shape[2] // 2
        return torch.arange(inputs).view(-1, 2**level, 2, half).transpose(1, 2).flatten()


def _rescaled(weight: Tensor, rescale: Tensor | None) -> Tensor:
    return weight if rescale is None else weight * along(rescale.flatten(), 0, weight)


@dataclass(frozen=True)
class Scaled:
    """(IA)^3: each output or each input of the layer times a number; `bias` says that a bias goes with the outputs."""

    factors: Tensor
    side: Side
    bias: bool = False

    @property
    def changes_bias(self) -> bool:
        """Does the bias go with the outputs?"""
        return self.bias and self.side == "outputs"

    def fits(self, layer: Changeable) -> bool:
        """Is there a number for each?"""
        axis = 0 if self.side == "outputs" else 1
        return layer.weight.ndim > axis and self.factors.numel() == layer.weight.shape[axis]

    def changed(self, weight: Tensor) -> Tensor:
        """W with its rows or columns scaled."""
        return weight * along(self.factors.flatten(), 0 if self.side == "outputs" else 1, weight)

    def changed_bias(self, bias: Tensor) -> Tensor:
        """The bias scaled, where it goes with the outputs."""
        return bias * self.factors.flatten().to(bias) if self.changes_bias else bias
