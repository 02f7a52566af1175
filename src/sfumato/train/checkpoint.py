"""The state of a run on disk: weights, averages, optimizer and step; a crash at any moment loses none that stood.

A checkpoint is a folder `step-N`, written aside, synced, renamed into place and read back before an older one is
removed. The tensors are three safetensors files, or, where they are divided among processes, PyTorch's distributed
checkpoint; each is read whatever the run that reads it is divided into. `latest` names the newest.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sfumato.errors import CheckpointError
from sfumato.train.adamw8bit import AdamW8bit
from sfumato.train.ema import Average

PREFIX = "step-"
LATEST = "latest"
PARTS = ("weights", "average", "optimizer")


@dataclass(frozen=True)
class Progress:
    """Where a run is: optimizer steps done, samples seen, seconds spent training."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class State:
    """Everything that a run goes on from. `scaler` is that of float16."""

    networks: Mapping[str, nn.Module]
    average: Average
    optimizer: torch.optim.Optimizer
    fingerprint: str
    scaler: "torch.amp.GradScaler | None" = field(default=None)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, in place, as `part/network/name`."""
        weights = {f"{name}/{key}": value for name, n in self.networks.items() for key, value in n.state_dict().items()}
        parts = (weights, self.average.state(), self._moments())
        return {f"{part}/{key}": value for part, held in zip(PARTS, parts, strict=True) for key, value in held.items()}

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}/{moment}": value
            for name, network in self.networks.items()
            for key, parameter in network.named_parameters()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }

    def make_moments(self) -> None:
        """Gives the optimizer its state before the first step, so that there is something to read into."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if isinstance(self.optimizer, AdamW8bit):
                    self.optimizer.state[parameter] = self.optimizer.make_state(parameter)
                else:
                    step = torch.zeros(
                        (), dtype=torch.float32, device=parameter.device
                    )  # where the fused kernel has it
                    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                    self.optimizer.state[parameter] = {"step": step, **moments}

    def told(self, progress: Progress) -> str:
        """The small part of the state, as JSON."""
        scaler = self.scaler.state_dict() if self.scaler else None
        told = {"step": progress.step, "samples": progress.samples, "seconds": progress.seconds, "scaler": scaler}
        return json.dumps({**told, "fingerprint": self.fingerprint}, indent=1)


def save(folder: Path, progress: Progress, state: State, keep: int) -> Path:
    """Writes a checkpoint from a single process, and removes all but the newest `keep` once it has been read back."""
    aside = begin(folder)
    tensors = state.tensors()
    for part in PARTS:
        held = {key.removeprefix(f"{part}/"): value for key, value in tensors.items() if key.startswith(f"{part}/")}
        save_file({key: value.detach().contiguous() for key, value in held.items()}, aside / f"{part}.safetensors")
    (aside / "state.json").write_text(state.told(progress))
    target = settle(folder, aside, progress)
    for key, value in _tensors_of(target).items():
        if not torch.equal(value, tensors[key].detach().cpu()):
            raise CheckpointError(f"{target} does not hold what was written ({key}); is the disk failing?")
    prune(folder, keep)
    return target


def begin(folder: Path) -> Path:
    """An empty folder to write a checkpoint into; what a crash left of others is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".writing-*"):
        shutil.rmtree(left)
    aside = folder / f".writing-{os.getpid()}"
    aside.mkdir()
    return aside


def settle(folder: Path, aside: Path, progress: Progress) -> Path:
    """Syncs a written checkpoint and gives it its name; `latest` names it."""
    target = folder / f"{PREFIX}{progress.step:08d}"
    for path in [*aside.rglob("*"), aside]:
        _sync(path)
    if target.exists():  # one that is not complete, or the same step of a run that was set back
        target.rename(folder / f".writing-{target.name}")
    aside.rename(target)
    _sync(folder)
    pointer = folder / f".{LATEST}"
    pointer.write_text(target.name + "\n")
    _sync(pointer)
    pointer.rename(folder / LATEST)
    _sync(folder)
    return target


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and what was set aside."""
    for old in checkpoints(folder)[:-keep]:
        old.rename(folder / f".writing-{old.name}")  # gone at once, so that none is ever half there
    for left in folder.glob(".writing-*"):
        shutil.rmtree(left)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a run's folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / "state.json").is_file())


def restore(path: Path, state: State) -> Progress:
    """Loads a checkpoint into the given state. Raises CheckpointError where it is damaged or belongs to another run."""
    try:
        told = json.loads((path / "state.json").read_text())
        if told["fingerprint"] != state.fingerprint:
            raise CheckpointError(
                f"{path} was made with other settings: {_differences(told['fingerprint'], state.fingerprint)}."
            )
        state.make_moments()
        if is_sharded(path):
            from sfumato.train.sharded import read

            read(path, state.tensors())
        else:
            _copy(path, _tensors_of(path), state.tensors())
        if state.scaler and told["scaler"]:
            state.scaler.load_state_dict(told["scaler"])
        return Progress(told["step"], told["samples"], told["seconds"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a complete checkpoint: {error}. Remove it to resume from an older one."
        ) from error


def is_sharded(path: Path) -> bool:
    """Was a checkpoint written by processes that each had a part?"""
    return (path / ".metadata").is_file()


@torch.no_grad()
def _copy(path: Path, held: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Copies tensors in place; those that are divided among processes take their part."""
    if held.keys() != into.keys():
        odd = sorted(held.keys() ^ into.keys())
        raise CheckpointError(f"{path} belongs to another run: {len(odd)} tensors differ, first {odd[0]!r}.")
    from torch.distributed.tensor import DTensor, distribute_tensor

    for key, value in into.items():
        if isinstance(value, DTensor):
            value.copy_(distribute_tensor(held[key].to(value.device), value.device_mesh, value.placements))
        else:
            value.copy_(held[key])


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of three files, as `part/network/name`."""
    return {f"{part}/{key}": v for part in PARTS for key, v in load_file(path / f"{part}.safetensors").items()}


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
