"""Contenders side by side: each in its process, all asked in turn, medians and ratios of what they answer."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LATEST = 900  # seconds that an answer may take; a compilation is the longest


class Contender:
    """A process of `bench.contender`; made now, asked later. Raises RuntimeError when it has ended."""

    def __init__(self, name: str, precision: str, folder: Path) -> None:
        self.name, self.precision = name, precision
        self.log = folder / f"{name}-{precision}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "bench.contender", name, precision, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def answer(self) -> dict[str, Any]:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} in {self.precision} has ended: {self.log.read_text()[-600:]}")
        answered: dict[str, Any] = json.loads(line)
        return answered

    def ask(self, task: str, save: Path | None = None) -> dict[str, Any]:
        """What it says of one task."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"task": task, "save": save and str(save)}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Rounds:
    """The answers of each contender to one task, in the order of the rounds."""

    task: str
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def seconds(self, name: str) -> list[float]:
        """The times of one contender."""
        return [answer["seconds"] for answer in self.answers[name]]

    def median(self, name: str) -> float:
        """The median time of one contender."""
        return statistics.median(self.seconds(name))

    def ratio(self, name: str, other: str) -> float:
        """The median over the rounds of one contender's time over another's in the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds(name), self.seconds(other), strict=True))


def take_turns(contenders: Sequence[Contender], task: str, rounds: int) -> Rounds:
    """Ask all in turn, `rounds` times; every other round backwards, so that a drift of the machine cancels."""
    taken = Rounds(task, {contender.name: [] for contender in contenders})
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            taken.answers[contender.name].append(contender.ask(task))
    return taken


def warm(contenders: Sequence[Contender], task: str, outputs: Path) -> dict[str, Path]:
    """Ask each once and keep what it computed; that run is not timed."""
    paths = {contender.name: outputs / f"{contender.name}-{contender.precision}-{task}.npy" for contender in contenders}
    for contender in contenders:
        contender.ask(task, paths[contender.name])
    return paths


def difference(path: Path, reference: Path) -> float:
    """How far an output is from the reference: the norm of the difference over the norm of the reference."""
    import numpy as np

    found, right = np.load(path).astype(np.float64), np.load(reference).astype(np.float64)
    if found.shape != right.shape:
        return float("inf")
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


def fresh(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What a new process says as its last line, told when it was started. Raises RuntimeError if it fails."""
    # What pip installed is compiled already; an editable checkout is so only if Python may keep what it compiles.
    kept = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = {"BENCH_BEGAN": repr(time.clock_gettime(time.CLOCK_MONOTONIC))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        capture_output=True,
        text=True,
        env={**kept, **began},
        timeout=LATEST,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr[-600:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
