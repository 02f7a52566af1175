"""The optimizer of a run, and its learning rate as a function of the samples seen."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from sfumato.train.config import SCHEDULES, OptimizerConfig, RunConfig, choice

KINDS = ("adamw", "adamw8bit")


def make_optimizer(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW in one fused kernel a step, or with its moments in 8 bits. Raises ConfigError for another kind."""
    options = {"lr": config.rate, "betas": config.betas, "weight_decay": config.weight_decay}
    choice("optimizer.kind", config.kind, KINDS)
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **options)  # type: ignore[arg-type]
    from sfumato.train.adamw8bit import AdamW8bit

    return AdamW8bit(parameters, **options)  # type: ignore[arg-type]


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
