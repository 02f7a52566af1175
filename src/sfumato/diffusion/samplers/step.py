"""What all samplers share: the step that they yield, their type, and the split of a step into descent and noise."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise


@dataclass(frozen=True)
class Step:
    """One finished step: its index from 0, the noise level reached, the latent there, and the clean estimate."""

    index: int
    sigma: float
    x: Tensor
    denoised: Tensor


Sampler = Callable[[Denoise, Tensor, list[float], Noise], Iterator[Step]]
"""(denoise, x at sigmas[0], sigmas, noise) -> one Step for each interval. x is never changed in place.

The sigmas fall, and are above 0 but for the last, which may be 0 or equal to the one before.

Progress, previews and cancelling are the consumer's for-loop.
"""


def ancestral(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """The level to descend to, and the noise to add there, so that the variance is sigma_next^2.

    eta 0 adds none; eta 1 adds what the diffusion's own reverse step has. Song et al. 2021, equation 16.
    """
    if eta == 0:
        return sigma_next, 0.0
    posterior = sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
    up = min(sigma_next, eta * posterior)
    return math.sqrt(sigma_next**2 - up**2), up


def descend(x: Tensor, denoised: Tensor, ratio: float) -> Tensor:
    """The latent moved along the straight line to its clean estimate until the noise is `ratio` of what it was."""
    if ratio == 0:
        return denoised
    return denoised + (x - denoised) * ratio
