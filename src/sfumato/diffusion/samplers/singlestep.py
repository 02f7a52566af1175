"""Second-order samplers that look ahead within a step: two network calls for each step but the last."""

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.step import Step, ancestral, descend


def heun(denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise) -> Iterator[Step]:
    """Heun's method: the slope is averaged over the two ends of a step. Karras et al. 2022, algorithm 1."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        ahead = descend(x, denoised, sigma_next / sigma)
        if sigma_next > 0:
            slope = (x - denoised) / sigma
            slope_next = (ahead - denoise(ahead, sigma_next)) / sigma_next
            x = x + (slope + slope_next) * ((sigma_next - sigma) / 2)
        else:
            x = ahead
        yield Step(index, sigma_next, x, denoised)


def dpm2(denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 0.0) -> Iterator[Step]:
    """DPM-Solver-2: the slope of a step is taken at its middle in log sigma.

    With eta > 0 the step descends further and fresh noise is added, as in `euler`.
    Lu et al. 2022 (DPM-Solver), algorithm 1, in the form of k-diffusion.
    """
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down, up = ancestral(sigma, sigma_next, eta)
        if down > 0:
            middle = math.sqrt(sigma * down)
            halfway = descend(x, denoised, middle / sigma)
            slope = (halfway - denoise(halfway, middle)) / middle
            x = x + slope * (down - sigma)
        else:
            x = denoised
        if up > 0:
            x = x + noise(index) * up
        yield Step(index, sigma_next, x, denoised)


def dpm2_ancestral(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver-2 steps with the reverse diffusion's own noise: `dpm2` at eta 1."""
    return dpm2(denoise, x, sigmas, noise, eta=eta)


def by_the_middle(denoise: Denoise, start: Tensor, denoised: Tensor, sigma: float, down: float) -> Tensor:
    """From `start` towards the clean estimate at the middle in log sigma of a step from `sigma` to `down`."""
    middle = math.sqrt(sigma * down)
    halfway = descend(start, denoised, middle / sigma)
    return descend(start, denoise(halfway, middle), down / sigma)


def dpmpp_2s_ancestral(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++(2S): exponential steps towards the clean estimate at the middle in log sigma, with fresh noise.

    Lu et al. 2022 (DPM-Solver++), algorithm 1, in the form of k-diffusion.
    """
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down, up = ancestral(sigma, sigma_next, eta)
        x = by_the_middle(denoise, x, denoised, sigma, down) if down > 0 else denoised
        if up > 0:
            x = x + noise(index) * up
        yield Step(index, sigma_next, x, denoised)


def dpmpp_sde(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 1.0, r: float = 0.5
) -> Iterator[Step]:
    """DPM-Solver++ for the reverse SDE, second order by a look at the part `r` of a step in log sigma.

    Its two draws a step are increments of one Brownian motion in sigma, as in k-diffusion: the noise of the whole
    step contains the noise of its first part. Draws 2 * step and 2 * step + 1.
    Lu et al. 2022 (DPM-Solver++), section 5, in the form of k-diffusion.
    """
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        elif sigma_next < sigma:
            middle = sigma ** (1 - r) * sigma_next**r
            down, up = ancestral(sigma, middle, eta)
            halfway = descend(x, denoised, down / sigma)
            if up > 0:
                first = noise(2 * index)
                halfway = halfway + first * up
            blend = 1 / (2 * r)
            estimate = denoised * (1 - blend) + denoise(halfway, middle) * blend
            down, up = ancestral(sigma, sigma_next, eta)
            x = descend(x, estimate, down / sigma)
            if up > 0:
                part = (sigma - middle) / (sigma - sigma_next)
                x = x + (first * math.sqrt(part) + noise(2 * index + 1) * math.sqrt(1 - part)) * up
        yield Step(index, sigma_next, x, denoised)
