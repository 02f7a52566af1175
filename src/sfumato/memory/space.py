"""The memory that networks run in: the machine's, or a GPU's."""

from typing import Protocol

import torch

from sfumato.memory.sizes import available, resident


class Space(Protocol):
    """A memory, in bytes."""

    @property
    def on_device(self) -> bool:
        """Is it another than the one that the process itself is in?"""

    def taken(self) -> int:
        """What this process has of it."""

    def free(self) -> int | None:
        """What this process may take beyond that; None where nobody tells."""


class Host:
    """The machine's memory: of all that the process has."""

    on_device = False

    def taken(self) -> int:
        """See `Space`."""
        return resident()

    def free(self) -> int | None:
        """See `Space`."""
        return available()


class Cuda:
    """A CUDA device's memory: of tensors, and of what PyTorch keeps for the next ones."""

    on_device = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def taken(self) -> int:
        """See `Space`."""
        return torch.cuda.memory_allocated(self.device)

    def free(self) -> int | None:
        """See `Space`."""
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + kept


class Mps:
    """What Metal says that it is wise to take of the memory that it shares with the processor."""

    on_device = True

    def taken(self) -> int:
        """See `Space`."""
        return torch.mps.current_allocated_memory()

    def free(self) -> int | None:
        """See `Space`."""
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)


HOST: Space = Host()


def space_of(device: torch.device) -> Space:
    """Return the memory that networks on a device run in."""
    if device.type == "cuda":
        return Cuda(device)
    return Mps() if device.type == "mps" else HOST
