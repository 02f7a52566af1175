"""DPM-Solver++ multistep, for the ODE and the SDE, of order one to three: the 2M and 3M samplers."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.multistep import final_order
from sfumato.diffusion.samplers.step import Step

Solver = Literal["midpoint", "heun"]
"""The weight of the slope in a second-order step: half of the first-order weight, or the exact integral."""


def dpmpp_multistep(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    *,
    order: int = 2,
    eta: float = 0.0,
    solver: Solver = "midpoint",
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Iterator[Step]:
    """Exponential steps towards a clean estimate that is extrapolated in log sigma from the latest ones.

    eta 0 solves the probability-flow ODE, eta 1 the reverse SDE. Steps to 0 are of first order: the clean estimate.
    With `lower_order_final`, runs of fewer than 15 steps end with lower orders, as in diffusers.
    Lu et al. 2022 (DPM-Solver++), algorithm 2 and appendix B; the third-order SDE step is k-diffusion's, where
    diffusers has the sign of its last constant reversed (its weight tends to -1 instead of 0 for short steps).
    """
    estimates: list[Tensor] = []
    lengths: list[float] = []
    steps = len(sigmas) - 1
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        estimates = [denoised, *estimates[: order - 1]]
        used = final_order(len(estimates), index, steps, lower_order_final)
        if euler_at_final and index == steps - 1:
            used = 1
        if sigma_next == 0:
            x = denoised
        else:
            h = math.log(sigma / sigma_next)
            span = (1 + eta) * h
            x = x * (math.exp(-eta * h) * sigma_next / sigma) + denoised * -math.expm1(-span)
            if used == 2:
                weight = phi_2(span) if solver == "heun" else -0.5 * math.expm1(-span)
                x = x + (estimates[0] - estimates[1]) * (weight * h / lengths[0])
            elif used == 3:
                first, second = derivatives(estimates, h, lengths)
                x = x + first * phi_2(span) - second * phi_3(span)
            if eta > 0 and h > 0:
                x = x + noise(index) * (sigma_next * math.sqrt(-math.expm1(-2 * eta * h)))
            lengths = [h, *lengths[:1]]
        yield Step(index, sigma_next, x, denoised)


def derivatives(estimates: list[Tensor], h: float, lengths: list[float]) -> tuple[Tensor, Tensor]:
    """h times the first and h^2 / 2 times the second derivative of the estimates in log sigma, newest first.

    `lengths` are the two steps before, newest first. Lu et al. 2022 (DPM-Solver++), appendix B.
    """
    last, before = lengths[0] / h if h else math.inf, lengths[1] / h if h else math.inf
    newest = (estimates[0] - estimates[1]) / last
    older = (estimates[1] - estimates[2]) / before
    bend = (newest - older) * (1 / (last + before))
    return newest + bend * (last if h else 0.0), bend


def phi_2(span: float) -> float:
    """(e^-u - 1) / u + 1, which is u / 2 for small u."""
    if abs(span) < 1e-4:  # the series is exact to 1e-17 there, the formula loses digits
        return span / 2 - span**2 / 6 + span**3 / 24
    return math.expm1(-span) / span + 1


def phi_3(span: float) -> float:
    """phi_2(u) / u - 1/2, which is -u / 6 for small u."""
    if abs(span) < 1e-3:
        return -span / 6 + span**2 / 24 - span**3 / 120
    return phi_2(span) / span - 0.5


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise) -> Iterator[Step]:
    """DPM-Solver++(2M): second order, deterministic."""
    return dpmpp_multistep(denoise, x, sigmas, noise, order=2)


def dpmpp_2m_sde(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 1.0, solver: Solver = "midpoint"
) -> Iterator[Step]:
    """DPM-Solver++(2M) for the SDE; k-diffusion's default solver is midpoint."""
    return dpmpp_multistep(denoise, x, sigmas, noise, order=2, eta=eta, solver=solver)


def dpmpp_2m_sde_heun(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++(2M) for the SDE with the exact weight of the slope: A1111's and ComfyUI's 2M SDE Heun."""
    return dpmpp_multistep(denoise, x, sigmas, noise, order=2, eta=eta, solver="heun")


def dpmpp_3m_sde(denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 1.0) -> Iterator[Step]:
    """DPM-Solver++(3M) for the SDE, as in k-diffusion."""
    return dpmpp_multistep(denoise, x, sigmas, noise, order=3, eta=eta, solver="heun")


def dpmpp_singlestep(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    *,
    order: int = 2,
    eta: float = 0.0,
    solver: Solver = "midpoint",
    lower_order_final: bool = True,
) -> Iterator[Step]:
    """Blocks of `order` steps that each start again from the block's first latent, with one estimate more.

    One network call a step. With `lower_order_final`, as in diffusers, the last block is shorter.
    Lu et al. 2022 (DPM-Solver++), algorithm 1 and appendix B; the third-order SDE step has the sign of its last
    constant as in `dpmpp_multistep`.
    """
    base, estimates, levels = x, list[Tensor](), list[float]()
    orders = block_orders(len(sigmas) - 1, order, lower_order_final, sigmas[-1] == 0)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if orders[index] == 1:
            base, estimates, levels = x, [], []
        estimates, levels = [*estimates, denoised], [*levels, sigma]
        if sigma_next == 0:
            x = denoised
        else:
            h = math.log(levels[0] / sigma_next)
            span = (1 + eta) * h
            x = base * (math.exp(-eta * h) * sigma_next / levels[0]) + estimates[0] * -math.expm1(-span)
            if len(estimates) > 1 and h > 0:
                x = x + _block_correction(
                    estimates, [math.log(levels[0] / level) / h for level in levels], span, solver
                )
            if eta > 0 and h > 0:
                x = x + noise(index) * (sigma_next * math.sqrt(-math.expm1(-2 * eta * h)))
        yield Step(index, sigma_next, x, denoised)


def _block_correction(estimates: list[Tensor], places: list[float], span: float, solver: Solver) -> Tensor:
    """What the later estimates of a block add to its first-order step; places are parts of the block."""
    slope = (estimates[-1] - estimates[0]) / places[-1]
    if len(estimates) == 2:
        return slope * (phi_2(span) if solver == "heun" else -0.5 * math.expm1(-span))
    if solver == "midpoint":
        return slope * phi_2(span)
    early = (estimates[1] - estimates[0]) / places[1]
    apart = places[-1] - places[1]
    first = (early * places[-1] - slope * places[1]) / apart
    return first * phi_2(span) - (slope - early) * (2 / apart * phi_3(span))


def block_orders(steps: int, order: int, lower_order_final: bool, ends_at_zero: bool) -> list[int]:
    """The order of every step: blocks of 1 .. order, cut off at the end, where the last step to 0 is of order 1.

    Without `lower_order_final`, blocks that the steps fill run to their full order.
    """
    orders = [index % order + 1 for index in range(steps)]
    if orders and (ends_at_zero or (lower_order_final and steps % order == 0)):
        orders[-1] = 1
    return orders
