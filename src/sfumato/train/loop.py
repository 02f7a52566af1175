"""The training loop, the same for every recipe, in one process or many: it resumes the run that it finds."""

import logging
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sfumato.errors import CheckpointError
from sfumato.train import checkpoint, sharded
from sfumato.train.ahead import ahead, count_workers
from sfumato.train.checkpoint import Progress, State
from sfumato.train.config import TrainConfig
from sfumato.train.device import uncompiled
from sfumato.train.ema import Average
from sfumato.train.journal import Journal, Report
from sfumato.train.optimizer import learning_rate, make_optimizer, make_scaler, set_rate, trained
from sfumato.train.plan import Coming, Pass, passes
from sfumato.train.ranks import Ranks, joined, whole

log = logging.getLogger(__name__)

T = TypeVar("T")


class Task(Protocol):
    """What a recipe gives the loop."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that are trained, by name, already on their device."""
        ...

    def inputs(self, part: Pass) -> Any:
        """What the loss of a pass needs beside the networks: made on the CPU, perhaps in another process."""
        ...

    def loss(self, part: Pass, inputs: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The mean loss over the samples of a pass, and figures for the log."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on samples that are never trained on, always with the same random numbers; may be empty."""
        ...

    def sheet(self) -> Image.Image | None:
        """A picture of what the networks (their averages, when called) do now."""
        ...

    def export(self, folder: Path) -> None:
        """Writes the finished networks (their averages, when called) where people and later stages find them."""
        ...


class Whole(nn.Module):
    """A recipe as one module whose forward is its loss, so that its gradients are summed over processes as one."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(task.networks)
        self._loss = task.loss

    def forward(self, part: Pass, inputs: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        return self._loss(part, inputs)


def run(task: Task, config: TrainConfig, *, resume: bool = False, report: Report | None = None) -> Progress:
    """Trains until `run.steps`, or until interrupted, and saves; returns where the run is.

    Writes log.jsonl, checkpoints, sheets and, once finished, the export under `run.output`. Without `resume`, a folder
    that already holds a run is a CheckpointError: nothing is overwritten. Under torchrun the processes share the work.
    """
    with joined() as ranks:
        return Training(task, config, ranks, report).go(resume)


class Training:
    """A run as it goes."""

    def __init__(self, task: Task, config: TrainConfig, ranks: Ranks, report: Report | None) -> None:
        self.task, self.config, self.ranks = task, config, ranks
        self.folder = Path(config.run.output)
        passes(config.run, 0, 0, ranks.rank, ranks.size)  # refuses what cannot be divided
        networks = task.networks
        self.divided = config.run.shard and ranks.size > 1
        if self.divided:
            sharded.shard(networks)
            self.saving_group = dist.new_group(backend="gloo")
        self.whole: nn.Module = Whole(task)
        if ranks.size > 1 and not self.divided:
            self.whole = DistributedDataParallel(self.whole, broadcast_buffers=False)
        self.parameters = trained(networks)
        self.workers = count_workers(config.run, self.parameters[0].device)
        self.optimizer = make_optimizer(config.optimizer, networks)
        self.scaler = make_scaler(config.run, self.parameters)
        self.average = Average(networks, config.run.ema)
        self.state = State(networks, self.average, self.optimizer, config.fingerprint(), self.scaler)
        self.saving: Saving | None = None
        self.norm: tuple[int, Tensor] | None = None  # the last step and the norm of its gradient, not yet looked at
        self.report = report if ranks.first else None

    def go(self, resume: bool) -> Progress:
        """From the newest checkpoint, or the start, to the end or an interruption."""
        run, existing = self.config.run, checkpoint.checkpoints(self.folder)
        self.ranks.wait()
        if existing and not resume:
            raise CheckpointError(f"{self.folder} already holds a run ({existing[-1].name}); --resume goes on with it.")
        progress = checkpoint.restore(existing[-1], self.state) if existing else Progress()
        self.folder.mkdir(parents=True, exist_ok=True)
        with Journal(self.config, progress, self.ranks, self.report) as journal, _until_interrupted() as interrupted:
            coming = Coming(run, progress.step, progress.samples, self.ranks.rank, self.ranks.size)
            made = ahead(self._made, coming, self.workers)
            looked_at = (run.validate_every, run.save_every, run.sheet_every)
            while progress.step < run.steps:
                progress = self.step(progress, journal, made)
                finished = progress.step == run.steps
                stop = self.ranks.any(interrupted())
                if any(progress.step % every == 0 for every in looked_at) or finished or stop:
                    self.check_gradient()
                if progress.step % run.validate_every == 0 or finished:
                    journal.note_validation(progress, self.with_averages(self.task.validate))
                if progress.step % run.save_every == 0 or finished or stop:
                    self.save(progress)
                if progress.step % run.sheet_every == 0 or finished:
                    self.show(self.folder / f"sheet-{progress.step:08d}.png")
                if stop:
                    break
        self.settle()
        if progress.step == run.steps:
            self.with_averages(self.export)
        return progress

    def _made(self, part: Pass) -> tuple[Pass, Any]:
        return part, self.task.inputs(part)

    def step(self, progress: Progress, journal: Journal, made: Iterator[tuple[Pass, Any]]) -> Progress:
        """One optimizer step with the next of the passes and inputs that come."""
        began = time.perf_counter()
        run = self.config.run
        for network in self.state.networks.values():
            if not network.training:
                network.train()
        rate = learning_rate(self.config.optimizer, progress.samples, run.batch, run.steps * run.batch)
        set_rate(self.optimizer, rate)
        figures: dict[str, float | Tensor] = {}
        share = 1 / self.ranks.size
        for at in range(run.accumulate):
            part, inputs = next(made)
            with self._summed(last=at == run.accumulate - 1):
                loss, told = self.whole(part, inputs)
                # Weighed by samples; the wrappers take the mean over processes, which is undone here.
                self.scaler.scale(loss * (part.share * self.ranks.size)).backward()
            for name, value in told.items():
                figures[name] = figures.get(name, 0.0) + value * (part.share / share)
        self.scaler.unscale_(self.optimizer)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip))
        if not self.scaler.is_enabled():
            self.check_gradient()
            self.norm = progress.step, norm
            if norm.device.type == "cpu":
                self.check_gradient()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.state.networks, progress.step)
        seconds = time.perf_counter() - began
        progress = Progress(progress.step + 1, progress.samples + run.batch, progress.seconds + seconds)
        journal.note(progress, {"gradient": norm, "rate": rate, **figures})
        return progress

    def check_gradient(self) -> None:
        """Raises CheckpointError if the last step's gradient was not finite.

        Beside a device it is asked a step later, so that the device need not wait; but before a validation, a
        checkpoint or a sheet.
        """
        if self.norm is not None and not torch.isfinite(self.norm[1]):
            raise CheckpointError(
                f"The gradient is not finite at step {self.norm[0]}; resume with a lower optimizer.rate."
            )
        self.norm = None

    @contextmanager
    def _summed(self, last: bool) -> Iterator[None]:
        """Within, gradients stay in this process unless it is the step's last pass."""
        if isinstance(self.whole, DistributedDataParallel):
            with nullcontext() if last else self.whole.no_sync():
                yield
            return
        if self.divided:
            for network in self.state.networks.values():
                network.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def save(self, progress: Progress) -> None:
        """A checkpoint; divided state is written while the run goes on, and settled before the next."""
        self.settle()
        if self.divided:
            self.saving = Saving(self, progress)
        elif self.ranks.first:
            checkpoint.save(self.folder, progress, self.state, self.config.run.keep)
        self.ranks.wait()

    def settle(self) -> None:
        """Waits for a checkpoint that is still being written, and gives it its place."""
        if self.saving is not None:
            self.saving.settle()
            self.saving = None

    def show(self, path: Path) -> None:
        """The sheet of the averages, as a file."""
        picture = self.with_averages(self.task.sheet)
        if picture is not None and self.ranks.first:
            picture.save(path)

    def export(self) -> None:
        """The export, from the first process; the others take part where its weights are divided among them."""
        if self.ranks.first:
            self.task.export(self.folder / "export")
        elif self.divided:
            with tempfile.TemporaryDirectory() as nowhere:
                self.task.export(Path(nowhere) / "export")
        self.ranks.wait()

    def with_averages(self, act: Callable[[], T]) -> T:
        """Does something while the networks hold their averages, in evaluation mode."""
        networks = self.state.networks
        self.average.swap(networks)
        for network in networks.values():
            network.eval()
        try:
            with uncompiled(self.config.run):
                return act()
        finally:
            self.average.swap(networks)


class Saving:
    """A checkpoint of divided state on its way to the disk."""

    def __init__(self, training: Training, progress: Progress) -> None:
        self.training, self.progress = training, progress
        ranks, folder = training.ranks, training.folder
        self.aside = folder / f".writing-{progress.step}"
        if ranks.first:
            checkpoint.begin(folder).rename(self.aside)
        ranks.wait()
        self.written = sharded.write(self.aside, training.state.tensors(), training.saving_group)
        self.told = training.state.told(progress)

    def settle(self) -> None:
        """Returns when every process has written its part and the checkpoint has its name."""
        self.written.result()
        ranks, folder = self.training.ranks, self.training.folder
        ranks.wait()
        if ranks.first:
            (self.aside / "state.json").write_text(self.told)
            sharded.verify(checkpoint.settle(folder, self.aside, self.progress))
            checkpoint.prune(folder, self.training.config.run.keep)
        ranks.wait()


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
