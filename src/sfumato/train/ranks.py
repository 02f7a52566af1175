"""The processes of a run: one, or those that torchrun started."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=10)  # how long a process waits for the others; one that fails is noticed at once


@dataclass(frozen=True)
class Ranks:
    """Which process this is of how many; `local` counts on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Is this the process that writes and tells?"""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process is here."""
        if self.size > 1:
            dist.barrier()

    def any(self, said: bool) -> bool:
        """Does any process say so?"""
        return bool(self.total({"said": float(said)})["said"])

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sum of each figure over the processes, which must all have the same names in the same order."""
        if self.size == 1 or not figures:
            return dict(figures)
        device = torch.device("cuda", self.local) if dist.get_backend() == "nccl" else torch.device("cpu")
        sums = torch.tensor(list(figures.values()), dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        return dict(zip(figures, sums.tolist(), strict=True))


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that torchrun started with it, or alone. Leaves the group at the end.

    Gloo between CPUs, NCCL between GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of one that is divided among processes, which must all ask; others as they are."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
