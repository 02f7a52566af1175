"""Where and in which precision a run computes."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from sfumato.errors import ConfigError
from sfumato.train.config import RunConfig

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

N = TypeVar("N", bound=nn.Module)


def pick_device(config: RunConfig) -> torch.device:
    """The device that `run.device` names; "auto" is CUDA, else MPS, else the CPU."""
    if config.device != "auto":
        return torch.device(config.device)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(config: RunConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context that the networks run in: none for float32, autocast for the others. Raises ConfigError."""
    if config.precision == "float32":
        return nullcontext()
    if config.precision in HALVES:
        return torch.autocast(device.type, HALVES[config.precision])
    raise ConfigError(f"run.precision is float32, bf16 or fp16, found {config.precision!r}.")


def channels_last(network: N) -> N:
    """The network with its convolutions in the memory order that is fastest on CPUs and CUDA."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def uncompiled(config: RunConfig) -> AbstractContextManager[object]:
    """A context in which nothing is compiled anew: for what has other shapes than training, and comes seldom."""
    return torch.compiler.set_stance("force_eager") if config.compile else nullcontext()


def compile_if_asked(config: RunConfig, *networks: nn.Module) -> None:
    """Compiles networks in place where `run.compile` says so; their state dicts stay as they are."""
    if config.compile:
        for network in networks:
            network.compile(dynamic=False)  # a size each time is compiled by itself, at full speed
