"""The optimizer of a run, and its learning rate as a function of the samples seen."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sfumato.errors import ConfigError
from sfumato.train.config import SCHEDULES, OptimizerConfig, RunConfig, choice

KINDS = ("adamw", "adamw8bit")
SHARE = "share"  # in a group of parameters: its rate over that of the run


def trained(networks: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """The parameters of the networks that learn, in order."""
    return [p for network in networks.values() for p in network.parameters() if p.requires_grad]


def make_optimizer(config: OptimizerConfig, networks: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
    """AdamW in one fused kernel a step, or with its moments in 8 bits; `set_rate` gives it the rate of a step.

    Raises ConfigError for another kind, and for rates of networks that there are not or that are no positive numbers.
    """
    if not 0 < config.rate < math.inf:
        raise ConfigError(f"optimizer.rate is {config.rate!r}; a rate is a number above 0.")
    for name, rate in config.rates.items():
        if name not in networks:
            raise ConfigError(f"optimizer.rates names {name!r}; this run trains {', '.join(networks)}.")
        if not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ConfigError(f"optimizer.rates: {name} is {rate!r}; a rate is a number above 0.")
    shares: dict[float, list[nn.Parameter]] = {}
    for name, network in networks.items():
        shares.setdefault(config.rates.get(name, config.rate) / config.rate, []).extend(trained({name: network}))
    parameters = [{"params": some, SHARE: share} for share, some in shares.items() if some]
    options = {"lr": config.rate, "betas": config.betas, "weight_decay": config.weight_decay}
    choice("optimizer.kind", config.kind, KINDS)
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **options)  # type: ignore[arg-type]
    from sfumato.train.adamw8bit import AdamW8bit

    return AdamW8bit(parameters, **options)  # type: ignore[arg-type]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every parameter the rate of a step, or its network's share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[SHARE]


def make_scaler(run: RunConfig, parameters: Sequence[nn.Parameter]) -> torch.amp.GradScaler:
    """What keeps float16's small gradients from vanishing; it does nothing in other precisions."""
    device = parameters[0].device.type if parameters else "cpu"
    return torch.amp.GradScaler(device, enabled=run.precision == "fp16")


def learning_rate(config: OptimizerConfig, seen: int, batch: int, total: int) -> float:
    """The rate of the step that comes after `seen` samples, in a run of `total`. Raises ConfigError."""
    choice("optimizer.schedule", config.schedule, SCHEDULES)
    if seen < config.warmup:
        return config.rate * min(1.0, (seen + batch) / config.warmup)
    done = min(1.0, (seen - config.warmup) / max(1, total - config.warmup))
    if config.schedule == "cosine":
        return config.rate * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * done)))
    if config.schedule == "linear":
        return config.rate * (config.final + (1 - config.final) * (1 - done))
    if config.schedule == "inverse_root":
        return config.rate * math.sqrt(max(1, config.warmup) / max(1, seen))
    return config.rate
