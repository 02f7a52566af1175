"""The parts of a model on disk, as diffusers has them: a folder with config.json and one file of weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sfumato.errors import ConfigError
from sfumato.train.config import TrainConfig
from sfumato.train.ranks import whole

N = TypeVar("N", bound=nn.Module)
C = TypeVar("C")


def start_folder(config: TrainConfig, name: str) -> Path:
    """The folder that `start.NAME` names. Raises ConfigError where there is none."""
    if name not in config.start:
        raise ConfigError(f"start.{name} must name a folder that holds the trained part.")
    return Path(config.start[name])


def read_part(folder: Path, network: Callable[[C], N], described: Callable[[Mapping[str, Any]], C]) -> N:
    """The trained network in a folder, float32 on the CPU. Raises ConfigError where it cannot be read."""
    try:
        part = network(described(json.loads((folder / "config.json").read_text())))
        weights = load_file(next(folder.glob("*.safetensors")))
    except (OSError, ValueError, StopIteration, SafetensorError) as error:
        raise ConfigError(f"{folder} holds no trained part ({error!r}).") from error
    try:
        part.load_state_dict({key: value.float() for key, value in weights.items()})
    except RuntimeError as error:
        raise ConfigError(f"{folder}: the weights do not fit the config.json beside them. {error}") from error
    return part


def write_part(network: nn.Module, described: Mapping[str, Any], folder: Path, name: str) -> None:
    """Writes config.json and the weights of a network, in its own precision, as NAME.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    tensors = {key: whole(value.detach()).contiguous().cpu() for key, value in network.state_dict().items()}
    save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt"})
