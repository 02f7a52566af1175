"""UniPC: a multistep predictor whose every network call also corrects the step before it."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import numpy as np
from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.step import Step

Variant = Literal["bh1", "bh2"]
"""The paper's B(h): h, or e^h - 1."""


def unipc(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    *,
    order: int = 2,
    variant: Variant = "bh2",
    lower_order_final: bool = True,
    uncorrected: tuple[int, ...] = (),
) -> Iterator[Step]:
    """UniPC in clean-latent prediction; one network call a step, the last step is not corrected.

    `uncorrected` are the steps whose result is taken as predicted. A step to 0 is of first order.
    Zhao et al. 2023 (UniPC), algorithms 5 and 6, with diffusers' choice of weights.
    """
    estimates: list[Tensor] = []
    times: list[float] = []  # -log sigma of the estimates, newest first
    before = x
    used = 0
    steps = len(sigmas) - 1
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        time = -math.log(sigma)
        if index > 0 and index - 1 not in uncorrected:
            x = _advance(before, sigmas[index - 1], sigma, estimates[:used], times[:used], variant, denoised)
        estimates = [denoised, *estimates[: order - 1]]
        times = [time, *times[: order - 1]]
        used = min(len(estimates), steps - index) if lower_order_final else len(estimates)
        before = x
        x = (
            denoised
            if sigma_next == 0
            else _advance(x, sigma, sigma_next, estimates[:used], times[:used], variant, None)
        )
        yield Step(index, sigma_next, x, denoised)


def _advance(
    x: Tensor,
    sigma: float,
    sigma_next: float,
    estimates: list[Tensor],
    times: list[float],
    variant: Variant,
    arrived: Tensor | None,
) -> Tensor:
    """One step from sigma to sigma_next; with the estimate that was made on arrival, its correction."""
    newest = estimates[0]
    h = math.log(sigma / sigma_next)
    moved = x * (sigma_next / sigma) - newest * math.expm1(-h)
    if h == 0:
        return moved
    places = [(time - times[0]) / h for time in times[1:]]
    differences = [(estimate - newest) / place for estimate, place in zip(estimates[1:], places, strict=True)]
    if arrived is not None:
        places, differences = [*places, 1.0], [*differences, arrived - newest]
    scale = -h if variant == "bh1" else math.expm1(-h)
    for weight, difference in zip(_weights(places, h, scale), differences, strict=True):
        moved = moved - difference * (scale * weight)
    return moved


def _weights(places: list[float], h: float, scale: float) -> list[float]:
    """The weights that make the step exact for polynomials in log sigma through the given places (in steps).

    The lowest orders, predictor 2 and corrector 1, take 1/2 for any h. Zhao et al. 2023, theorem 3.1.
    """
    count = len(places)
    if count <= 1:
        return [0.5] * count
    moment = math.expm1(-h) / -h - 1
    factorial = 1
    moments = []
    for power in range(1, count + 1):
        moments.append(moment * factorial / scale)
        factorial *= power + 1
        moment = moment / -h - 1 / factorial
    matrix = np.array([[place**power for place in places] for power in range(count)])
    solution: list[float] = np.linalg.solve(matrix, np.array(moments)).tolist()
    return solution
