"""The training loop, the same for every recipe: it resumes the run that it finds in its folder."""

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from sfumato.errors import CheckpointError
from sfumato.train import checkpoint
from sfumato.train.checkpoint import Progress
from sfumato.train.config import OptimizerConfig, TrainConfig
from sfumato.train.ema import Average

log = logging.getLogger(__name__)


class Task(Protocol):
    """What a recipe gives the loop."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that are trained, by name, already on their device."""
        ...

    def loss(self, step: int, microbatch: int, first: int, count: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The mean loss over samples number `first` to `first + count - 1`, and figures for the log."""
        ...

    def sheet(self) -> Image.Image | None:
        """A picture of what the networks (their averages, when called) do now."""
        ...

    def export(self, folder: Path) -> None:
        """Writes the finished networks (their averages, when called) where people and later stages find them."""
        ...


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of a step: linear warm-up, then half a cosine down to `final` times the rate at the last step."""
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.rate * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def run(
    task: Task, config: TrainConfig, *, resume: bool = False, report: Callable[[dict[str, float]], None] | None = None
) -> Progress:
    """Trains until `run.steps`, or until interrupted, and saves; returns where the run is.

    Writes log.jsonl, checkpoints, sheets and, once finished, the export under `run.output`. Without `resume`, a folder
    that already holds a run is a CheckpointError: nothing is overwritten.
    """
    folder = Path(config.run.output)
    existing = checkpoint.checkpoints(folder)
    if existing and not resume:
        raise CheckpointError(f"{folder} already holds a run ({existing[-1].name}); --resume goes on with it.")
    networks = task.networks
    parameters = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
    o = config.optimizer
    optimizer = torch.optim.AdamW(parameters, lr=o.rate, betas=o.betas, weight_decay=o.weight_decay, fused=True)
    average = Average(networks, config.run.ema)
    progress = Progress()
    if existing:
        progress = checkpoint.restore(existing[-1], config.fingerprint(), networks, average, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    journal = _Journal(folder / "log.jsonl", config.run.log_every, progress, report)
    with _until_interrupted() as interrupted:
        while progress.step < config.run.steps and not interrupted():
            progress = _step(task, config, networks, parameters, optimizer, average, progress, journal)
            finished = progress.step == config.run.steps
            if progress.step % config.run.save_every == 0 or finished or interrupted():
                fingerprint = config.fingerprint()
                checkpoint.save(folder, progress, fingerprint, networks, average, optimizer, config.run.keep)
            if progress.step % config.run.sheet_every == 0 or finished:
                _show(task, networks, average, folder / f"sheet-{progress.step:08d}.png")
    if progress.step == config.run.steps:
        average.swap(networks)
        task.export(folder / "export")
        average.swap(networks)
    return progress


def _step(
    task: Task,
    config: TrainConfig,
    networks: dict[str, nn.Module],
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: Average,
    progress: Progress,
    journal: "_Journal",
) -> Progress:
    began = time.perf_counter()
    for network in networks.values():
        network.train()
    rate = learning_rate(config.optimizer, progress.step, config.run.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    figures: dict[str, float | Tensor] = {}
    for microbatch in range(config.run.accumulate):
        first = progress.samples + microbatch * config.run.batch
        loss, figures = task.loss(progress.step, microbatch, first, config.run.batch)
        (loss / config.run.accumulate).backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip)
    if not torch.isfinite(norm):
        raise CheckpointError(
            f"The gradient is not finite at step {progress.step}; resume with a lower optimizer.rate."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    average.update(networks, progress.step)
    seconds = time.perf_counter() - began
    samples = config.run.batch * config.run.accumulate
    progress = Progress(progress.step + 1, progress.samples + samples, progress.seconds + seconds)
    journal.note(progress, {"gradient": norm, "rate": rate, **figures})
    return progress


class _Journal:
    """The figures of a run, averaged over `every` steps, as JSON lines."""

    def __init__(
        self, path: Path, every: int, progress: Progress, report: Callable[[dict[str, float]], None] | None
    ) -> None:
        self.path, self.every, self.report = path, every, report
        self.sums: dict[str, float] = {}
        self.since, self.count = progress, 0

    def note(self, progress: Progress, figures: dict[str, float | Tensor]) -> None:
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)
        self.count += 1
        if progress.step % self.every:
            return
        line = {key: total / self.count for key, total in self.sums.items()}
        speed = (progress.samples - self.since.samples) / max(1e-9, progress.seconds - self.since.seconds)
        line = {"step": progress.step, "samples": progress.samples, "samples_per_second": speed, **line}
        with self.path.open("a") as file:
            file.write(json.dumps({key: float(f"{value:.6g}") for key, value in line.items()}) + "\n")
        if self.report:
            self.report(line)
        self.sums, self.since, self.count = {}, progress, 0


def _show(task: Task, networks: dict[str, nn.Module], average: Average, path: Path) -> None:
    average.swap(networks)
    for network in networks.values():
        network.eval()
    picture = task.sheet()
    average.swap(networks)
    if picture is not None:
        picture.save(path)


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Within, SIGINT and SIGTERM ask the loop to save and stop after its step instead of ending it."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        log.warning("Stopping after this step; --resume goes on from here.")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
