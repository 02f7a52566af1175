"""The state of a run on disk: weights, averages, optimizer and step, as safetensors; a crash loses none that stood."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sfumato.errors import CheckpointError
from sfumato.train.ema import Average

PREFIX = "step-"


@dataclass(frozen=True)
class Progress:
    """Where a run is: optimizer steps done, samples seen, seconds spent training."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0


def save(
    folder: Path,
    progress: Progress,
    fingerprint: str,
    networks: dict[str, nn.Module],
    average: Average,
    optimizer: torch.optim.Optimizer,
    keep: int,
) -> Path:
    """Writes a checkpoint beside, syncs it, renames it into place, then removes all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{PREFIX}{progress.step:08d}"
    aside = folder / f".writing-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    weights = {f"{name}/{key}": value for name, n in networks.items() for key, value in n.state_dict().items()}
    for name, tensors in (
        ("weights", weights),
        ("average", average.state()),
        ("optimizer", _moments(networks, optimizer)),
    ):
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, aside / f"{name}.safetensors")
    state = {
        "step": progress.step,
        "samples": progress.samples,
        "seconds": progress.seconds,
        "fingerprint": fingerprint,
    }
    (aside / "state.json").write_text(json.dumps(state, indent=1))
    for path in [*aside.iterdir(), aside]:
        _sync(path)
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)
    _sync(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a run's folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / "state.json").is_file())


def restore(
    path: Path, fingerprint: str, networks: dict[str, nn.Module], average: Average, optimizer: torch.optim.Optimizer
) -> Progress:
    """Loads a checkpoint into the given objects. Raises CheckpointError where it belongs to another run."""
    try:
        state = json.loads((path / "state.json").read_text())
        weights, averages, moments = (load_file(path / f"{n}.safetensors") for n in ("weights", "average", "optimizer"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a complete checkpoint: {error}. Remove it to resume from an older one."
        ) from error
    if state["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{path} was made with other settings: {_differences(state['fingerprint'], fingerprint)}."
        )
    for name, network in networks.items():
        network.load_state_dict({k.removeprefix(f"{name}/"): v for k, v in weights.items() if k.startswith(f"{name}/")})
    average.load(averages)
    _load_moments(networks, optimizer, moments)
    return Progress(state["step"], state["samples"], state["seconds"])


def _moments(networks: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}/{moment}": value
        for name, network in networks.items()
        for key, parameter in network.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def _load_moments(networks: dict[str, nn.Module], optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    for name, network in networks.items():
        for key, parameter in network.named_parameters():
            prefix = f"{name}/{key}/"
            found = {k.removeprefix(prefix): v for k, v in moments.items() if k.startswith(prefix)}
            for moment, value in found.items():
                memory = torch.preserve_format
                placed = torch.empty_like(parameter, memory_format=memory) if value.shape == parameter.shape else value
                optimizer.state[parameter][moment] = placed.copy_(value) if placed is not value else value


def _differences(old: str, new: str) -> str:
    before, after = _flat(json.loads(old)), _flat(json.loads(new))
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return "; ".join(f"{key} was {before.get(key)!r}, now {after.get(key)!r}" for key in changed[:5])


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
