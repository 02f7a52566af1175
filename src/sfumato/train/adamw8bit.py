"""AdamW whose two moments are kept in 8 bits each: a quarter of the memory, on any device.

Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization": blocks of 256 numbers, each with its largest
magnitude as scale, and a code that has more values near zero.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 256
DECADES = 7  # that the code spans
SMALLEST = 4096  # numbers; smaller tensors keep float32 moments, as the paper's implementation does


def code(signed: bool) -> Tensor:
    """The 256 values of the dynamic code, sorted, in [-1, 1] or [0, 1]: zero, one, and means of equal parts of decades.

    Each decade below the highest has half as many as the one above.
    """
    values = [0.0, 1.0]
    for decade in range(DECADES):
        parts = 2 ** (decade if signed else decade + 1)
        bounds = torch.linspace(0.1, 1, parts + 1, dtype=torch.float64)
        means = ((bounds[:-1] + bounds[1:]) / 2 * 10.0 ** (decade - DECADES + 1)).tolist()
        values += [*means, *(-mean for mean in means)] if signed else means
    return torch.tensor(sorted(values), dtype=torch.float32)


SIGNED, UNSIGNED = code(True), code(False)


def quantise(values: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers as codes [blocks, 256] uint8, of the nearest value in the table, and scales [blocks]."""
    blocks = nn.functional.pad(values.flatten(), (0, -values.numel() % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1)
    table = table.to(values.device)
    middles = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(blocks / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None], middles)
    return codes.to(torch.uint8), scale


def restore(codes: Tensor, scale: Tensor, table: Tensor, shape: torch.Size) -> Tensor:
    """The numbers that codes stand for, float32."""
    values = table.to(codes.device)[codes.int()] * scale[:, None]
    return values.flatten()[: shape.numel()].view(shape)


class AdamW8bit(torch.optim.Optimizer):
    """AdamW, Loshchilov and Hutter 2019, with its state in 8 bits."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def make_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The state of a parameter before its first step."""
        zeros = torch.zeros_like(parameter, dtype=torch.float32, memory_format=torch.contiguous_format)
        step = torch.zeros((), dtype=torch.float32)
        if parameter.numel() < SMALLEST:
            return {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        (first, first_scale), (second, second_scale) = quantise(zeros, SIGNED), quantise(zeros, UNSIGNED)
        return {
            "step": step,
            "exp_avg": first,
            "exp_avg_scale": first_scale,
            "exp_avg_sq": second,
            "exp_avg_sq_scale": second_scale,
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step over all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if not self.state[parameter]:
                        self.state[parameter] = self.make_state(parameter)
                    self._update(parameter, self.state[parameter], group)

    def _update(self, parameter: nn.Parameter, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        state["step"] += 1
        small = "exp_avg_scale" not in state
        first, second = state["exp_avg"], state["exp_avg_sq"]
        if not small:
            first = restore(first, state["exp_avg_scale"], SIGNED, parameter.shape)
            second = restore(second, state["exp_avg_sq_scale"], UNSIGNED, parameter.shape)
        assert parameter.grad is not None
        gradient = parameter.grad.float()
        (beta1, beta2), step = group["betas"], float(state["step"])
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(first, size, value=-group["lr"] / (1 - math.pow(beta1, step)))
        if not small:
            for name, values, table in (("exp_avg", first, SIGNED), ("exp_avg_sq", second, UNSIGNED)):
                codes, scale = quantise(values, table)
                state[name].copy_(codes)
                state[f"{name}_scale"].copy_(scale)
