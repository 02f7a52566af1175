"""The figures of a run as they come: JSON lines, TensorBoard's events, and whoever looks on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.train.checkpoint import Progress
from sfumato.train.config import TrainConfig
from sfumato.train.ranks import Ranks

Report = Callable[[dict[str, float]], None]


class Journal:
    """log.jsonl in the run's folder, its lines averaged over `run.log_every` steps and all processes."""

    def __init__(self, config: TrainConfig, progress: Progress, ranks: Ranks, report: Report | None) -> None:
        self.folder, self.every, self.ranks, self.report = Path(config.run.output), config.run.log_every, ranks, report
        self.sums: dict[str, float | Tensor] = {}
        self.since, self.count = progress, 0
        self.events = _events(self.folder / "events") if config.run.tensorboard and ranks.first else None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.events is not None:
            self.events.close()

    def note(self, progress: Progress, figures: Mapping[str, float | Tensor]) -> None:
        """Takes the figures of a step."""
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if progress.step % self.every:
            return
        means = {key: float(total) / self.count for key, total in self.sums.items()}
        line = {key: value / self.ranks.size for key, value in self.ranks.total(means).items()}
        speed = (progress.samples - self.since.samples) / max(1e-9, progress.seconds - self.since.seconds)
        self._write({"step": progress.step, "samples": progress.samples, "samples_per_second": speed, **line})
        self.sums, self.since, self.count = {}, progress, 0

    def note_validation(self, progress: Progress, figures: Mapping[str, float]) -> None:
        """Takes the figures of a validation, if there are any, as a line of their own."""
        if figures:
            told = {f"validation_{name}": value for name, value in figures.items()}
            self._write({"step": progress.step, "samples": progress.samples, **told})

    def _write(self, line: dict[str, float]) -> None:
        if not self.ranks.first:
            return
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({key: float(f"{value:.6g}") for key, value in line.items()}) + "\n")
        if self.events is not None:
            for key, value in line.items():
                if key != "step":
                    self.events.add_scalar(key, value, int(line["step"]))
            self.events.flush()
        if self.report:
            self.report(line)


def _events(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "run.tensorboard needs tensorboardX, which is not installed; pip install 'sfumato[tensorboard]', "
            "or leave it off: log.jsonl has the same figures."
        ) from error
    return SummaryWriter(str(folder))
