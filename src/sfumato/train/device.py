"""Where and in which precision a run computes."""

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from sfumato.errors import ConfigError
from sfumato.train.config import RunConfig

N = TypeVar("N", bound=nn.Module)


def pick_device(config: RunConfig) -> torch.device:
    """The device that `run.device` names; "auto" is CUDA, else MPS, else the CPU."""
    if config.device != "auto":
        return torch.device(config.device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(config: RunConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context that the networks run in: none for float32, autocast for bf16. Raises ConfigError for others."""
    if config.precision == "float32":
        return nullcontext()
    if config.precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    raise ConfigError(f"run.precision is float32 or bf16, found {config.precision!r}.")


def channels_last(network: N) -> N:
    """The network with its convolutions in the memory order that is fastest on CPUs and CUDA."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
