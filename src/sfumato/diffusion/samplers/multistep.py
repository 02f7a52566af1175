"""Linear multistep samplers: the slope of a step is extrapolated from earlier ones; one network call a step."""

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise, Prediction, from_network_output, network_output
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.step import Step, descend

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the latest slopes, newest first, for evenly spaced steps; Liu et al. 2022 (PNDM), equation 9."""

SHORT_RUN = 15  # steps below which diffusers lowers the order at the end, for stability


def plms(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, averaged: Prediction = "epsilon"
) -> Iterator[Step]:
    """PNDM with linear multistep: an improved Euler step, then Adams-Bashforth of order up to four.

    One network call more than steps. The weights are those of evenly spaced timesteps, whatever the spacing.
    Liu et al. 2022 (PNDM), algorithm 2. `averaged` is what is extrapolated: the noise in the paper; diffusers takes
    the network's raw output, which for a velocity is of first order only.
    """
    outputs: list[Tensor] = []
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        outputs = [network_output(averaged, x, denoised, sigma), *outputs[:3]]
        if index == 0 and len(sigmas) > 2:
            ahead = descend(x, denoised, sigma_next / sigma)
            output = (outputs[0] + network_output(averaged, ahead, denoise(ahead, sigma_next), sigma_next)) / 2
        else:
            output = weighted(ADAMS_BASHFORTH[len(outputs) - 1], outputs)
        x = descend(x, from_network_output(averaged, x, output, sigma), sigma_next / sigma)
        yield Step(index, sigma_next, x, denoised)


def lms(denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, order: int = 4) -> Iterator[Step]:
    """Adams-Bashforth in sigma with weights for the actual spacing: k-diffusion's and diffusers' LMS."""
    slopes: list[Tensor] = []
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[: order - 1]]
        if sigma_next == 0 and len(slopes) == 1:
            x = denoised
        else:
            knots = sigmas[index - len(slopes) + 1 : index + 1][::-1]
            x = x + weighted(lagrange_integrals(knots, sigma_next), slopes)
        yield Step(index, sigma_next, x, denoised)


def deis(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, order: int = 2, lower_order_final: bool = True
) -> Iterator[Step]:
    """DEIS in log rho: the noise estimate is extrapolated as a polynomial in log sigma and integrated over sigma.

    With `lower_order_final`, runs of fewer than 15 steps end with lower orders, as in diffusers. A last step to 0
    is of first order. Zhang and Chen 2023, equation 15.
    """
    slopes: list[Tensor] = []
    steps = len(sigmas) - 1
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[: order - 1]]
        used = final_order(len(slopes), index, steps, lower_order_final)
        if sigma_next == 0:
            x = denoised
        else:
            knots = sigmas[index - used + 1 : index + 1][::-1]
            x = x + weighted(log_lagrange_integrals(knots, sigma_next), slopes)
        yield Step(index, sigma_next, x, denoised)


def final_order(order: int, index: int, steps: int, lower_order_final: bool) -> int:
    """The order of a step when short runs end with lower ones: at most 2 in the last step but one, 1 in the last."""
    if lower_order_final and steps < SHORT_RUN:
        return min(order, steps - index)
    return order


def weighted(weights: tuple[float, ...] | list[float], tensors: list[Tensor]) -> Tensor:
    """The weighted sum of the first tensors, one for each weight."""
    total = tensors[0] * weights[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=False):
        total = total + tensor * weight
    return total


Polynomial = list[float]  # coefficients, lowest power first


def lagrange_integrals(knots: list[float], end: float) -> list[float]:
    """The integrals from knots[0] to `end` of the Lagrange polynomials on the knots, in the order of the knots."""
    centred = [knot - knots[0] for knot in knots]
    return [_integral(_lagrange(centred, index), end - knots[0]) for index in range(len(knots))]


def log_lagrange_integrals(knots: list[float], end: float) -> list[float]:
    """As `lagrange_integrals` over sigma, of polynomials in log sigma; exact, by parts. Everything is above 0."""
    times = [math.log(knot / knots[0]) for knot in knots]
    end_time = math.log(end / knots[0])
    integrals = []
    for index in range(len(knots)):
        # d/du [e^u (P - P' + P'' - ...)] = e^u P, and sigma = knots[0] e^u
        derivative, sign, at_end, at_start = _lagrange(times, index), 1.0, 0.0, 0.0
        while derivative:
            at_end += sign * _value(derivative, end_time)
            at_start += sign * derivative[0]
            derivative, sign = [power * c for power, c in enumerate(derivative)][1:], -sign
        integrals.append(knots[0] * (math.exp(end_time) * at_end - at_start))
    return integrals


def _lagrange(knots: list[float], index: int) -> Polynomial:
    """The polynomial that is 1 at one knot and 0 at the others."""
    product = [1.0]
    for other, knot in enumerate(knots):
        if other != index:
            span = knots[index] - knot
            product = [(high - knot * low) / span for low, high in zip([*product, 0.0], [0.0, *product], strict=True)]
    return product


def _value(polynomial: Polynomial, at: float) -> float:
    return sum(coefficient * at**power for power, coefficient in enumerate(polynomial))


def _integral(polynomial: Polynomial, end: float) -> float:
    """From 0 to `end`."""
    return sum(coefficient * end ** (power + 1) / (power + 1) for power, coefficient in enumerate(polynomial))
