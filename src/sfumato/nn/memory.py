"""Arithmetic that writes over its first argument when no gradient is recorded: less memory, fewer page faults.

The first argument of each is a tensor that only the caller holds, such as what a layer has just returned; an input of
a network is never written over.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def writable(own: Tensor, other: Tensor) -> bool:
    """Can the result of own (op) other be written over `own`?"""
    return not torch.is_grad_enabled() and own.dtype == other.dtype  # two types promote, as under autocast


def add(own: Tensor, other: Tensor) -> Tensor:
    """own + other; `other` may be broadcast to the shape of `own`."""
    return own.add_(other) if writable(own, other) else own + other


def multiply(own: Tensor, other: Tensor) -> Tensor:
    """own * other; `other` may be broadcast to the shape of `own`."""
    return own.mul_(other) if writable(own, other) else own * other


def silu(own: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return F.silu(own, inplace=not torch.is_grad_enabled())
