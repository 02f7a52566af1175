"""Networks and schedules from strangers' configurations: right ones, or one error; no crash, no hang, no import."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from sfumato.diffusion.presets import from_scheduler_config
from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.schedule import NoiseSchedule
from sfumato.diffusion.schedule import from_scheduler_config as schedule_from_config
from sfumato.errors import ConfigError, ModelFileError
from sfumato.weights.build import on_meta

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)

LARGEST = 1_000_000  # of any whole number in a configuration; the largest real one is a vocabulary of 49,408
MOST_LAYERS = 100  # of a level or a text encoder; OpenCLIP bigG has 32
MOST_TIMESTEPS = 100_000  # of a noise schedule; every published one has 1,000
LAYERS = frozenset({"layers_per_block", "transformer_layers_per_block", "num_hidden_layers"})
MOST_LEVELS = 16  # of a UNet or an autoencoder, and items of any list; real ones have 4
# What our networks cannot do with a value of the wrong type, when it is first used.
MISUSE = (TypeError, ValueError, ArithmeticError, AttributeError, IndexError, RuntimeError)


def network_config(read: Callable[[Mapping[str, Any]], C], stated: Mapping[str, Any], path: Path) -> C:
    """Read a network's configuration. Raises ModelFileError or ConfigError that names the file and the option."""
    for key, value in stated.items():
        limit = MOST_LAYERS if key in LAYERS else LARGEST
        if not key.startswith("_") and key not in ("id2label", "label2id") and not is_moderate(value, limit):
            raise ModelFileError(f"{path}: {key} = {str(value)[:80]} is beyond anything that a network has.")
    try:
        return read(stated)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except MISUSE as error:
        raise ModelFileError(f"{path}: a value has the wrong type or range: {error}") from error


def sampling_config(stated: Mapping[str, Any], path: Path) -> tuple[NoiseSchedule, Sampling]:
    """Read a scheduler's configuration: the noise schedule and the default way to sample. Errors: `network_config`."""
    timesteps = stated.get("num_train_timesteps", 1000)
    if not isinstance(timesteps, int) or not 1 <= timesteps <= MOST_TIMESTEPS:
        raise ModelFileError(
            f"{path}: num_train_timesteps = {str(timesteps)[:80]} is not from 1 to {MOST_TIMESTEPS:,}."
        )
    try:
        return schedule_from_config(stated), from_scheduler_config(stated)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except MISUSE as error:
        raise ModelFileError(f"{path}: a scheduler's value has the wrong type or range: {error}") from error


def network_of(make: Callable[[], M], path: Path) -> M:
    """Build a network without weights. Raises ModelFileError if its configuration makes none."""
    try:
        return on_meta(make)
    except MISUSE as error:
        raise ModelFileError(f"{path}: no network can be made of this configuration: {error}") from error


def is_moderate(value: object, limit: int) -> bool:
    """Say whether the whole numbers in a value, and its lists, are of a size that networks have."""
    if isinstance(value, list):
        return len(value) <= MOST_LEVELS and all(is_moderate(item, limit) for item in value)
    return not isinstance(value, int) or -1 <= value <= limit
