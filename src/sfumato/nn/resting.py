"""Weights that rest in the host's memory, or on the disk, and come to a device for as long as they compute.

A `Resting` weight has the shape, the precision and the device of one that is there, so that a network made of such
weights is used like any other. What computes with one gets its numbers from a `Room`: the memory of a device, in which
the weights of one network at a time are, or of one layer and of what follows it.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

AHEAD = 64 << 20  # bytes of weights that are on their way while a layer computes: several, so that the bus never waits

# What a weight can be asked without its numbers.
LOOKS = {
    Tensor.numel, Tensor.nelement, Tensor.size, Tensor.dim, Tensor.stride, Tensor.element_size, Tensor.__len__,
    Tensor.is_floating_point, Tensor.is_complex, Tensor.is_contiguous, Tensor.requires_grad_, Tensor.detach,
}  # fmt: skip
PROPERTIES = {
    "shape", "dtype", "device", "layout", "ndim", "itemsize", "requires_grad", "is_leaf", "grad", "grad_fn", "is_meta",
    "is_cuda", "is_mps", "is_cpu", "is_sparse", "is_quantized", "is_nested",
}  # fmt: skip


class Weight:
    """A weight at rest, on a CPU, and for as long as it is `here` on a device.

    `network`: weights of one network, or of several that compute by turns, are there together. `order` is the memory
    order of four-dimensional ones on the device, None: that in which they rest. `arrival` tells when one that was sent
    for ahead is there.
    """

    def __init__(self, rest: Tensor, network: str, order: torch.memory_format | None = None) -> None:
        self.rest, self.network = rest, network
        self.order = order if rest.ndim == 4 else None
        self.here: Tensor | None = None
        self.arrival: Any = None
        self.next: Callable[[], Weight | None] = lambda: None

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return self.rest.numel() * self.rest.element_size()

    @property
    def rests_in_order(self) -> bool:
        """Does it rest in the memory order of the device?"""
        return self.order is None or self.rest.is_contiguous(memory_format=self.order)

    def ordered(self, tensor: Tensor) -> Tensor:
        """A copy of it in the memory order of the device."""
        return tensor if self.order is None else tensor.contiguous(memory_format=self.order)


class Transfer(Protocol):
    """How weights come to a device."""

    def bring(self, weight: Weight) -> Tensor:
        """It there, now."""

    def send(self, weight: Weight) -> Tensor:
        """It there, when what computes has waited for its `arrival`."""

    def receive(self, weight: Weight) -> None:
        """Wait for the arrival of one that was sent."""


class AtOnce:
    """Copies that are waited for: any device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def bring(self, weight: Weight) -> Tensor:
        """See `Transfer`."""
        return weight.ordered(weight.rest.to(self.device, copy=True))

    def send(self, weight: Weight) -> Tensor:
        """See `Transfer`."""
        return self.bring(weight)

    def receive(self, weight: Weight) -> None:
        """See `Transfer`."""


class Streamed:
    """Copies on a stream of their own beside what computes: CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """The one for copies; CUDA is not touched before the first of them."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def bring(self, weight: Weight) -> Tensor:
        """See `Transfer`."""
        return weight.ordered(weight.rest.to(self.device, non_blocking=True))

    def send(self, weight: Weight) -> Tensor:
        """See `Transfer`."""
        if not weight.rests_in_order:  # which the stream that computes sees to
            return self.bring(weight)
        computing = torch.cuda.current_stream(self.device)
        # of the computing stream, whose later tensors take its memory over; it was another's until now
        here = torch.empty_like(weight.rest, device=self.device)
        self.stream.wait_stream(computing)
        with torch.cuda.stream(self.stream):
            here.copy_(weight.rest, non_blocking=True)
            weight.arrival = self.stream.record_event()
        return here

    def receive(self, weight: Weight) -> None:
        """See `Transfer`."""
        if weight.arrival is not None:
            torch.cuda.current_stream(self.device).wait_event(weight.arrival)
            weight.arrival = None


class Room:
    """The memory of a device for weights that rest elsewhere.

    Those of a network come one by one as it computes, and stay until another computes. `by_layers`, one stays for as
    long as it computes, and those that followed it last time are sent for meanwhile.
    """

    def __init__(self, device: torch.device, transfer: Transfer | None = None) -> None:
        self.device = device
        self.by_layers = False
        self._transfer = transfer or (Streamed(device) if device.type == "cuda" else AtOnce(device))
        self._there: weakref.WeakSet[Weight] = weakref.WeakSet()
        self._network: str | None = None
        self._last: Callable[[], Weight | None] = lambda: None

    @cached_property
    def place(self) -> torch.device:
        """The device with its number, as tensors that are there name it."""
        return torch.empty(0, device=self.device).device

    @property
    def nbytes(self) -> int:
        """The bytes of the weights that are there."""
        return sum(each.nbytes for each in self._there)

    def clear(self) -> None:
        """Let go of all that is there."""
        self._keep(())

    def numbers(self, weight: Weight) -> Tensor:
        """A weight on the device, brought there if it has to be."""
        if weight.network != self._network:
            self.clear()
            self._network = weight.network
        if not self.by_layers:
            return self._brought(weight)
        last = self._last()
        if last is not None and last is not weight:
            last.next = weakref.ref(weight)
        self._last = weakref.ref(weight)
        coming = list(following(weight))
        self._keep((weight, *coming))
        here = self._brought(weight)
        for each in coming:
            if each.here is None:
                each.here = self._transfer.send(each)
                self._there.add(each)
        return here

    def _brought(self, weight: Weight) -> Tensor:
        if weight.here is None:
            weight.here = self._transfer.bring(weight)
            self._there.add(weight)
        else:
            self._transfer.receive(weight)
        return weight.here

    def _keep(self, some: Sequence[Weight]) -> None:
        for each in list(self._there):
            if each not in some:
                self._transfer.receive(each)  # its memory is another's as soon as it is let go of
                each.here = None
                self._there.discard(each)


def following(weight: Weight) -> Iterator[Weight]:
    """The weights of its network that were asked for after it last time, as many as are sent for ahead."""
    size, each = 0, weight.next()
    seen = {weight}
    while each is not None and each not in seen and each.network == weight.network and size < AHEAD:
        yield each
        seen.add(each)
        size, each = size + each.nbytes, each.next()


class Resting(Tensor):
    """A weight that rests elsewhere: what computes with it gets its numbers on the device.

    It cannot be written to. Rows of a table of embeddings are looked up where it rests.
    """

    weight: Weight
    room: Room

    @staticmethod
    def __new__(cls, weight: Weight, room: Room) -> "Resting":
        rest = weight.rest
        strides = weight.ordered(torch.empty_like(rest, device="meta")).stride()
        made: Any = Tensor._make_wrapper_subclass(cls, rest.shape, strides=strides, dtype=rest.dtype, device=room.place)
        return cast(Resting, made)

    def __init__(self, weight: Weight, room: Room) -> None:
        self.weight, self.room = weight, room

    @property
    def numbers(self) -> Tensor:
        """It on the device."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.room.numbers(self.weight)

    def like(self, value: Tensor) -> "Resting":
        """Another weight of the same layer, of its shape and precision, that rests where this one does."""
        with torch._C.DisableTorchFunctionSubclass():
            rest = at_rest(self, self.room.device).copy_(value)
            return Resting(Weight(rest, self.weight.network, self.weight.order), self.room)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """The same weight: nothing writes to it."""
        memo[id(self)] = made = nn.Parameter(Resting(self.weight, self.room), requires_grad=False)
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        with torch._C.DisableTorchFunctionSubclass():
            if func in LOOKS or (name == "__get__" and func.__self__.__name__ in PROPERTIES):
                return func(*args, **kwargs)
            writes = name in ("__set__", "__setitem__") or (name.endswith("_") and not name.endswith("__"))
            if writes and isinstance(args[0], cls):
                raise TypeError(f"a weight that rests elsewhere is not written to ({name})")
            if func is torch.empty_like:
                bare = torch.empty_strided(args[0].shape, args[0].stride(), dtype=args[0].dtype, device="meta")
                return func(bare, *args[1:], **{"device": args[0].device, **kwargs})
            if func is F.embedding and isinstance(args[1], cls):
                ids, table, *others = args
                return func(ids.to(table.weight.rest.device), table.weight.rest, *others, **kwargs).to(ids.device)
            args, kwargs = tree_map_only(cls, lambda each: each.room.numbers(each.weight), (args, kwargs))
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # of torch's own classes it is none that is a method
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].weight, args[0].room)
        args, kwargs = tree_map_only(cls, lambda each: each.room.numbers(each.weight), (args, kwargs or {}))
        return func(*args, **kwargs)


def is_resting(network: nn.Module) -> bool:
    """Does a weight of this network rest elsewhere?"""
    return any(isinstance(each, Resting) for each in network.parameters())


def at_rest(like: Tensor, device: torch.device) -> Tensor:
    """A tensor on the CPU, not initialised, in memory that the device reads by itself where CUDA gives such memory."""
    pinned = device.type == "cuda" and torch.cuda.is_available()
    try:
        return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu", pin_memory=pinned)
    except RuntimeError:  # the system gives no more of it
        return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu")


def rest(network: nn.Module, room: Room, name: str, order: torch.memory_format | None = None) -> None:
    """Let all weights of a network rest, as those of the network `name`; those that are on the device leave it.

    Those that rest already are left as they are. `order`: see `Weight`.
    """
    for module in network.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, Resting):
                continue
            tensor = parameter.detach()
            if tensor.device.type != "cpu":
                tensor = at_rest(tensor, room.device).copy_(tensor)
            module._parameters[key] = nn.Parameter(Resting(Weight(tensor, name, order), room), requires_grad=False)
