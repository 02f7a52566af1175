"""A network's step on CUDA as one recording: its small kernels take less time than Python needs to launch them."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

AFTER = 4  # calls that run as they come: the first ones prepare libraries, and a short run ends before it pays

Network = Callable[..., Tensor]
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Takes what is to be run; gives what runs it again and the tensor that the result is in after each time."""


class Replayed:
    """`network(*inputs)` of tensors and None: after a few calls of the same shapes, its kernels are replayed.

    They are the same kernels in the same order, so that the result is the same. For one run: the network may not change
    meanwhile, nor do anything that depends on numbers but by tensors. It holds the memory of a step until it is gone.
    """

    def __init__(self, network: Network, record: "Record | None" = None) -> None:
        self.network = network
        self.record = record or recorded
        self.calls: Counter[Any] = Counter()
        self.recordings: dict[Any, _Recording] = {}

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        key = tuple(None if each is None else (each.shape, each.dtype, each.device) for each in inputs)
        self.calls[key] += 1
        if self.calls[key] <= AFTER or torch.is_grad_enabled():
            return self.network(*inputs)
        if key not in self.recordings:
            try:
                self.recordings[key] = _Recording(self.network, inputs, self.record)
            except RuntimeError as error:  # no memory left for a second set of a step's maps, say
                log.info("A step is not recorded (%s); it runs as it comes.", error)
                self.calls.clear()
                return self.network(*inputs)
        return self.recordings[key](inputs)


class _Recording:
    """One call of a network, with inputs that are written over before each replay."""

    def __init__(self, network: Network, inputs: tuple[Tensor | None, ...], record: Record) -> None:
        self.held = [None if each is None else each.clone() for each in inputs]
        self.replay, self.output = record(lambda: network(*self.held))

    def __call__(self, inputs: tuple[Tensor | None, ...]) -> Tensor:
        for held, given in zip(self.held, inputs, strict=True):
            if held is not None and given is not None:
                held.copy_(given)
        self.replay()
        return self.output.clone()


def recorded(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records what runs on the current CUDA device; nothing is computed until it is replayed."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may allocate meanwhile
        output = run()
    return graph.replay, output
