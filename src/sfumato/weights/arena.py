"""Memory for the weights of a network, in one piece that is returned to the system when the network is gone.

Large pages were tried and left: on a virtual machine whose host takes back what is free, they took twice as long.
"""

import logging
import mmap
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ALIGNMENT = 64  # bytes, a cache line
PIECE = 256 << 20  # bytes, a power of two: of others PyTorch takes the next one for memory that CUDA reads by itself
# Pages of this process alone; those that can be shared, which Python makes by default, cost more.
PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def reserve(
    wanted: Iterable[tuple[torch.Size, torch.dtype]],
    device: torch.device,
    order: torch.memory_format = torch.channels_last,
    *,
    pinned: bool = False,
) -> Iterator[Tensor]:
    """Yield a tensor of each shape and type, not initialised; four-dimensional ones in the order that is given.

    On a CPU the memory is returned when the last of the tensors is gone; each has a storage of its own, unless they are
    `pinned`, as far as there can be such memory: CUDA reads it by itself, while something else is computed.
    """
    wanted = list(wanted)
    if pinned:
        try:
            found = list(reserve_pinned(wanted, order))
        except RuntimeError as error:  # the system does not give so much
            log.info("Weights rest in memory that is not pinned (%s); they come to the device more slowly.", error)
        else:
            yield from found
            return
    if device.type != "cpu":
        for shape, dtype in wanted:
            yield ordered(torch.empty(shape.numel(), dtype=dtype, device=device), shape, order)
        return
    sizes = [-(-shape.numel() * dtype.itemsize // ALIGNMENT) * ALIGNMENT for shape, dtype in wanted]
    room = mmap.mmap(-1, sum(sizes) or ALIGNMENT, **PRIVATE)
    start = 0
    for (shape, dtype), size in zip(wanted, sizes, strict=True):
        if not shape.numel():  # frombuffer refuses it
            yield torch.empty(shape, dtype=dtype)
            continue
        yield ordered(torch.frombuffer(room, dtype=dtype, count=shape.numel(), offset=start), shape, order)
        start += size


def reserve_pinned(wanted: Iterable[tuple[torch.Size, torch.dtype]], order: torch.memory_format) -> Iterator[Tensor]:
    """Yield tensors as `reserve` does, in memory that CUDA reads by itself. Raises RuntimeError where there is none."""
    sizes = [(shape, dtype, shape.numel() * dtype.itemsize) for shape, dtype in wanted]
    left = sum(-(-size // ALIGNMENT) * ALIGNMENT for _, _, size in sizes)
    room, start = torch.empty(0, dtype=torch.uint8), 0
    for shape, dtype, size in sizes:
        if start + size > room.numel():
            start, room = 0, torch.empty(max(min(left, PIECE), size), dtype=torch.uint8, pin_memory=True)
        yield ordered(room[start : start + size].view(dtype), shape, order)
        taken = -(-size // ALIGNMENT) * ALIGNMENT
        start, left = start + taken, left - taken


def ordered(flat: Tensor, shape: torch.Size, order: torch.memory_format) -> Tensor:
    """View dense memory as a tensor of this shape; channels last as [A, B, h, w] with B innermost."""
    if len(shape) != 4 or order is not torch.channels_last:
        return flat.view(shape)
    a, b, h, w = shape
    return flat.view(a, h, w, b).permute(0, 3, 1, 2)
