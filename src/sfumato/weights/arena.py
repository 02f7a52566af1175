"""Memory for the weights of a network, in one piece that is returned to the system when the network is gone.

Large pages were tried and left: on a virtual machine whose host takes back what is free, they took twice as long.
"""

import mmap
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes, a cache line
# Pages of this process alone; those that can be shared, which Python makes by default, cost more.
PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def reserve(
    wanted: Iterable[tuple[torch.Size, torch.dtype]],
    device: torch.device,
    order: torch.memory_format = torch.channels_last,
) -> Iterator[Tensor]:
    """Yield a tensor of each shape and type, not initialised; four-dimensional ones in the order that is given.

    On a CPU the memory is returned when the last of the tensors is gone; each has a storage of its own.
    """
    wanted = list(wanted)
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


def ordered(flat: Tensor, shape: torch.Size, order: torch.memory_format) -> Tensor:
    """View dense memory as a tensor of this shape; channels last as [A, B, h, w] with B innermost."""
    if len(shape) != 4 or order is not torch.channels_last:
        return flat.view(shape)
    a, b, h, w = shape
    return flat.view(a, h, w, b).permute(0, 3, 1, 2)
