"""Networks run without numbers, and the bytes that their tensors would have."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sfumato.allocator import HUGE

N = TypeVar("N", bound=nn.Module)


def bare(network: N, dtype: torch.dtype) -> N:
    """Return a copy of a network without numbers, in a precision."""

    def empty(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, dtype=dtype if tensor.is_floating_point() else tensor.dtype, device="meta")

    parameters = {id(each): nn.Parameter(empty(each), requires_grad=False) for each in network.parameters()}
    buffers = {id(each): empty(each) for each in network.buffers()}
    return copy.deepcopy(network, {**parameters, **buffers})


# What stays with a process for tensors that are there at once.
HOLES = 1.5  # times those in the C library's heap, which keeps what is freed: holes that others do not fit, copies
COPIES = 1.45  # times those that are too large for it and go back to the system: copies, and the holes of the others


@dataclass(frozen=True)
class Footprint:
    """The most bytes that tensors had at once, and what the process has for them at most."""

    tensors: int = 0
    process: int = 0

    @classmethod
    def of(cls, sizes: Iterable[int]) -> "Footprint":
        """What tensors of so many bytes are together."""
        sizes = list(sizes)
        large = sum(size for size in sizes if size >= HUGE)
        small = sum(sizes) - large
        return cls(small + large, int(HOLES * small + COPIES * large))

    def beside(self, other: "Footprint") -> "Footprint":
        """What is held together with something else."""
        return Footprint(self.tensors + other.tensors, self.process + other.process)

    def after(self, other: "Footprint") -> "Footprint":
        """What is held when both are run, one after the other."""
        return Footprint(max(self.tensors, other.tensors), max(self.process, other.process))


def held_by(networks: Iterable[nn.Module], run: Callable[[], object]) -> Footprint:
    """Return what tensors made in a run hold; the networks' own are left out."""
    ledger = Ledger(networks)
    with torch.no_grad(), Numberless(), ledger:
        run()
    return ledger.footprint


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations make, for as long as somebody holds them."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        own = (each for network in networks for each in network.parameters())
        self._own = {each.untyped_storage()._cdata for each in own}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.footprint = Footprint()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._own:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self._live = {key: each for key, each in self._live.items() if not each[0].expired()}  # type: ignore[no-untyped-call]
        self.footprint = self.footprint.after(Footprint.of(size for _, size in self._live.values()))
        return made


class Numberless(TorchFunctionMode):
    """Within, attention makes its answer and nothing else, as the kernel for CPUs does, and numbers are made up.

    Statistics that are taken to the CPU are zeros, and every number is finite.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        if func is Tensor.cpu:
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if func is torch.isfinite:
            return torch.ones(1, dtype=torch.bool)
        return func(*args, **(kwargs or {}))


class Doubled(TorchFunctionMode):
    """Within, maps are doubled before they are convolved, as on every device but a CPU (`nn.blocks.Upsample`)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.conv_transpose2d:
            return func(*args, **(kwargs or {}))
        x, kernel = args[:2]
        larger = F.interpolate(x, scale_factor=2, mode="nearest")
        return larger.new_empty(len(x), kernel.shape[1], *larger.shape[2:])
