"""Training: the recipes by name, and how a run is started from its configuration."""

from collections.abc import Callable, Sequence
from pathlib import Path

KINDS = ("autoencoder", "text", "unet", "lora", "inversion", "inpainting", "reader")
# Sections of a configuration that only some recipes read.
SECTIONS = {
    "lora": ("lora", "inpainting"),
    "prior": ("lora", "unet"),
    "imagined": ("unet",),
    "inversion": ("inversion",),
    "inpainting": ("inpainting",),
}


def run_training(
    kind: str,
    config_path: Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
) -> int:
    """Trains a thing of `KINDS` from a TOML file; returns the number of steps done when it finishes or is interrupted.

    `report` is called with the figures of every log line. Raises ConfigError, DataError or CheckpointError before
    anything is written.
    """
    from sfumato.allocator import keep_freed_memory
    from sfumato.errors import ConfigError
    from sfumato.train import loop
    from sfumato.train.config import read_config
    from sfumato.train.data import Sampled, say_left_out

    keep_freed_memory()
    config = read_config(config_path, overrides)
    for section, readers in SECTIONS.items():
        if getattr(config, section) and kind not in readers:
            raise ConfigError(f"[{section}] is for {' and '.join(readers)}, not for {kind}; leave it out.")
    task: loop.Task
    if kind == "autoencoder":
        from sfumato.train.autoencoder import AutoencoderTask

        task = AutoencoderTask(config)
    elif kind == "text":
        from sfumato.train.text import TextTask

        task = TextTask(config)
    elif kind == "unet":
        from sfumato.train.unet import UNetTask

        task = UNetTask(config)
    elif kind == "lora":
        from sfumato.train.lora import LoraTask

        task = LoraTask(config)
    elif kind == "inversion":
        from sfumato.train.inversion import InversionTask, undecayed

        config = undecayed(config)
        task = InversionTask(config)
    elif kind == "inpainting":
        from sfumato.train.inpainting import InpaintingTask

        task = InpaintingTask(config)
    elif kind == "reader":
        from sfumato.train.reader import ReaderTask

        task = ReaderTask(config)
    else:
        raise ConfigError(f"Nothing to train is called {kind!r}; there are {', '.join(KINDS)}.")
    progress = loop.run(task, config, resume=resume, report=report)
    if isinstance(task, Sampled):
        say_left_out(task.samples)
    return progress.step
