"""DPM-Solver multistep in noise prediction: the method that DPM-Solver++ came from."""

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.dpmpp import Solver, derivatives
from sfumato.diffusion.samplers.multistep import final_order
from sfumato.diffusion.samplers.step import Step


def dpm_multistep(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    *,
    order: int = 2,
    stochastic: bool = False,
    solver: Solver = "midpoint",
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Iterator[Step]:
    """Steps along a noise estimate that is extrapolated in log sigma; `stochastic` solves the reverse SDE.

    The SDE is of order two at most. A step to 0 is of first order. With `lower_order_final`, runs of fewer than 15
    steps end with lower orders, as in diffusers. Lu et al. 2022 (DPM-Solver), section 3.
    """
    slopes: list[Tensor] = []
    lengths: list[float] = []
    steps = len(sigmas) - 1
    strength = 2.0 if stochastic else 1.0
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[: min(order, 2 if stochastic else 3) - 1]]
        used = final_order(len(slopes), index, steps, lower_order_final)
        if euler_at_final and index == steps - 1:
            used = 1
        if sigma_next == 0:
            x = denoised
        elif sigma_next < sigma:
            h = math.log(sigma / sigma_next)
            x = x - slopes[0] * (strength * (sigma - sigma_next))
            slope_weight = sigma_next * (math.expm1(h) / h - 1)
            if used == 2:
                weight = slope_weight if solver == "heun" else 0.5 * (sigma - sigma_next)
                x = x - (slopes[0] - slopes[1]) * (strength * weight * h / lengths[0])
            elif used == 3:
                first, second = derivatives(slopes, h, lengths)
                x = x - first * slope_weight - second * (sigma_next * ((math.expm1(h) - h) / h**2 - 0.5))
            if stochastic:
                x = x + noise(index) * math.sqrt(sigma**2 - sigma_next**2)
            lengths = [h, *lengths[:1]]
        yield Step(index, sigma_next, x, denoised)
