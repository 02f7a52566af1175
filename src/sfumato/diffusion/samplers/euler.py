"""Euler steps, with and without fresh noise: DDIM, DDPM, Euler and Euler ancestral are all this one function."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.step import Step, ancestral, descend


def euler(denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 0.0) -> Iterator[Step]:
    """Euler steps along the probability-flow ODE, with fresh noise after each step when eta > 0.

    eta 0 on `leading` sigmas is DDIM, eta 1 is DDPM; on other sigmas the same steps are called Euler and Euler
    ancestral. Karras et al. 2022, algorithm 2; Song et al. 2021, equation 12.
    """
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down, up = ancestral(sigma, sigma_next, eta)
        x = descend(x, denoised, down / sigma)
        if up > 0:
            x = x + noise(index) * up
        yield Step(index, sigma_next, x, denoised)


def euler_ancestral(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, eta: float = 1.0
) -> Iterator[Step]:
    """Euler steps with the reverse diffusion's own noise: `euler` at eta 1, under the name that users know."""
    return euler(denoise, x, sigmas, noise, eta=eta)
