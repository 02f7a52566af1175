"""How one tensor in somebody else's file becomes tensors of ours, and back.

A naming is a list of rules, generated from a network's configuration, that covers every tensor of the network once.
The same rules read a file, write one, and say which names and shapes a file must have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["same", "matrix", "transposed", "stacked"]


@dataclass(frozen=True)
class Rule:
    """One tensor of theirs and the tensors of ours that it holds.

    same        equal
    matrix      [A, B, 1, 1] there (a 1x1 convolution; also found as [A, B]), [A, B] here
    transposed  [B, A] there, [A, B] here
    stacked     several of ours, one below the other, along the first dimension
    """

    theirs: str
    ours: tuple[str, ...]
    kind: Kind = "same"

    def read(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Turn the tensor of theirs into ours, in the order of `ours`."""
        if self.kind == "matrix":
            return (tensor.flatten(1),)
        if self.kind == "transposed":
            return (tensor.T.contiguous(),)
        if self.kind == "stacked":
            return tuple(tensor.chunk(len(self.ours)))
        return (tensor,)

    def write(self, tensors: Sequence[Tensor]) -> Tensor:
        """Turn tensors of ours, in the order of `ours`, into theirs."""
        if self.kind == "matrix":
            return tensors[0][:, :, None, None]
        if self.kind == "transposed":
            return tensors[0].T.contiguous()
        if self.kind == "stacked":
            return torch.cat(list(tensors))
        return tensors[0]


Naming = tuple[Rule, ...]


def identity(names: Sequence[str], prefix: str = "") -> Naming:
    """Name each tensor as we do, behind a prefix."""
    return tuple(Rule(prefix + name, (name,)) for name in names)


def prefixed(naming: Naming, prefix: str) -> Naming:
    """Put a prefix before each name of theirs."""
    return tuple(Rule(prefix + rule.theirs, rule.ours, rule.kind) for rule in naming)


def their_shapes(naming: Naming, ours: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape that each tensor of theirs must have, for ours (which may lie on the meta device)."""
    return {rule.theirs: tuple(rule.write([ours[name] for name in rule.ours]).shape) for rule in naming}


def from_theirs(naming: Naming, theirs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield our names and tensors, read from theirs one after the other."""
    for rule in naming:
        yield from zip(rule.ours, rule.read(theirs[rule.theirs]), strict=True)


def to_theirs(naming: Naming, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return their names and tensors, made from ours."""
    return {rule.theirs: rule.write([ours[name] for name in rule.ours]) for rule in naming}
