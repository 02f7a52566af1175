"""What a device waits for, made ahead by other processes: the inputs of coming passes, and what is made once for all.

Each is a function of its number alone (train/plan.py), so that the result does not depend on who computes it, or when.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from sfumato.errors import ConfigError, SfumatoError
from sfumato.train.config import RunConfig

log = logging.getLogger(__name__)

AHEAD = 2  # results that each process has ready at most, in shared memory
MOST = 16  # processes, where nobody says how many

T = TypeVar("T")
U = TypeVar("U")


def count_workers(run: RunConfig, device: torch.device, *, cores: int | None = None) -> int:
    """How many processes work ahead: `run.workers`; -1 is none beside a CPU that trains, else all cores but one.

    The processes of one machine that torchrun started share its cores. Only where processes can be forked. Raises
    ConfigError for a number below -1.
    """
    if run.workers < -1:
        raise ConfigError(f"run.workers is {run.workers}; it is a number of processes, or -1 for as many as are idle.")
    forks = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    if run.workers > 0 and not forks:
        log.warning("run.workers is %d, but this system cannot fork processes; inputs are made in turn.", run.workers)
    if not forks or (run.workers < 0 and device.type == "cpu"):
        return 0
    available = cores or len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return run.workers if run.workers >= 0 else max(0, min(available - 1, MOST))


def in_chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in runs of so many, the last one shorter."""
    return [items[at : at + size] for at in range(0, len(items), size)]


def ahead(make: Callable[[T], U], items: Iterable[T], workers: int) -> Iterator[U]:
    """`make` of each item, in their order: in this process when its turn comes, or by so many others ahead of it.

    They are forks of this process as it is now, and must not touch its device. Our errors are raised here as they are.
    """
    if isinstance(items, Sized):
        workers = min(workers, len(items) - 1)
    if workers <= 0:
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
    for each in made:
        if isinstance(each, _Failed):
            raise each.error
        yield each


@dataclass(frozen=True)
class _Failed:
    """An error of ours, on its way to who waits for a result."""

    error: SfumatoError


class _Made(Dataset[Any]):
    """`make` as something with items."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.make(item)
        except SfumatoError as error:
            return _Failed(error)


def _as_it_is(made: T) -> T:
    return made


def _begin(number: int) -> None:
    """Leaves interruptions, which reach every process of a group, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_asked, args=(os.getppid(),), daemon=True).start()


def _end_when_asked(parent: int) -> None:
    """Ends this process when its parent asks for it, by SIGTERM; what others send is the parent's to answer."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
