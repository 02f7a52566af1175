"""What a device waits for, made ahead by other processes: the inputs of coming passes, and what is made once for all.

Each is a function of its number alone (train/plan.py), so that the result does not depend on who computes it, or when.
"""

import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from sfumato.train.config import RunConfig

log = logging.getLogger(__name__)

AHEAD = 4  # results that each process has ready at most
MOST = 32  # processes, where nobody says how many

T = TypeVar("T")
U = TypeVar("U")


def count_workers(run: RunConfig, device: torch.device) -> int:
    """How many processes work ahead: `run.workers`; -1 is none beside a CPU that trains, else all cores but one.

    The processes of one machine that torchrun started share its cores. Only where processes can be forked.
    """
    forks = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    if run.workers > 0 and not forks:
        log.warning("run.workers is %d, but this system cannot fork processes; inputs are made in turn.", run.workers)
    if not forks or (run.workers < 0 and device.type == "cpu"):
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return run.workers if run.workers >= 0 else max(0, min(cores - 1, MOST))


def ahead(make: Callable[[T], U], items: Iterable[T], workers: int) -> Iterator[U]:
    """`make` of each item, in their order: in this process when its turn comes, or by so many others ahead of it.

    They are forks of this process as it is now, and must not touch its device. Their errors are raised here.
    """
    if workers == 0:
        yield from map(make, items)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than cores: as was asked
        made = iter(
            DataLoader(
                _Made(make),
                sampler=items,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=AHEAD,
                multiprocessing_context="fork",
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # for its seeds, which nothing uses; the global one stays as it is
                worker_init_fn=_begin,
            )
        )
    yield from made


class _Made(Dataset[Any]):
    """`make` as something with items."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, item: Any) -> Any:
        return self.make(item)


def _as_it_is(made: T) -> T:
    return made


def _begin(number: int) -> None:
    """Leaves interruptions to the process that trains; it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
