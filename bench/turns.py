"""Contenders in one process, in turn: what each makes, how long a step of it takes, and how much memory."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WARM = 3  # steps before any is timed; the first compiles, the next two may allocate
ROUND = 0.5  # seconds that a turn should last
MOST = 40  # steps of a turn

Step = Callable[[], "torch.Tensor | None"]
"""Does it once; what comes back is compared."""


@dataclass
class Budget:
    """So many seconds from now on."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until it ends; negative after that."""
        return self.began + self.seconds - time.monotonic()


@dataclass
class Turns:
    """What one contender made and needed. `failed` says why it has no figures."""

    first: "torch.Tensor | None" = None
    ready: float = 0.0
    times: list[float] = field(default_factory=list)
    memory: int = 0
    failed: str = ""

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.times)


def take_turns(
    makers: Mapping[str, Callable[[], Step]], device: "torch.device", budget: Budget, rounds: int = 4
) -> dict[str, Turns]:
    """Makes and warms up all that there is time for, then times them in turn, every other round backwards.

    All take the same number of steps. One that fails is told and left out, and so is one for which no time is left.
    """
    taken = {name: Turns() for name in makers}
    steps: dict[str, Step] = {}
    for name, make in makers.items():
        if budget.left < 0:
            taken[name].failed = "left out: no time was left"
            continue
        began = time.monotonic()
        with told_if_it_fails(name, taken[name]):
            steps[name] = make()
            first = steps[name]()
            taken[name].first = None if first is None else first.detach().float().clone()
            for _ in range(WARM - 1):
                steps[name]()
            synchronize(device)
            taken[name].ready = time.monotonic() - began
    count = 1
    for number in range(-1, rounds):  # the first finds out how many steps a turn has
        there = [name for name in steps if not taken[name].failed]
        for name in there if number % 2 == 0 else reversed(there):
            before = reset_peak(device)
            with told_if_it_fails(name, taken[name]):
                taken[name].times.append(timed(steps[name], count, device))
            taken[name].memory = max(taken[name].memory, peak(device) - before)
        if number < 0 and there:
            said = ", ".join(f"{name} {turns.times[0] * 1e3:.2f} ms" for name, turns in taken.items() if turns.times)
            print(f"the first step timed: {said}", file=sys.stderr, flush=True)
            slowest = max(turns.times.pop() for turns in taken.values() if turns.times)
            count = max(1, min(MOST, round(ROUND / slowest)))
    return taken


@contextmanager
def told_if_it_fails(name: str, turns: Turns) -> Iterator[None]:
    """Within, an error is told, and ends only what one contender does."""
    try:
        yield
    except Exception as error:
        turns.failed = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(f"{name}: {turns.failed}", file=sys.stderr, flush=True)


def timed(step: Step, count: int, device: "torch.device") -> float:
    """Seconds of a step: the mean over so many without a pause, until the device has finished them."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(device)
    return (time.perf_counter() - began) / count


def synchronize(device: "torch.device") -> None:
    """Wait until the device has done all that it was told."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def reset_peak(device: "torch.device") -> int:
    """Forget the peak of the device's memory, and say how much is taken now; 0 where nobody counts."""
    import torch

    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak(device: "torch.device") -> int:
    """The most memory that was taken since `reset_peak`, in bytes."""
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def clear(device: "torch.device") -> None:
    """Let go of what nobody holds any more, of compiled code too, so that the next have the whole memory."""
    import torch

    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
