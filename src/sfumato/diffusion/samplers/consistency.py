"""Samplers of distilled models, whose one call already estimates the end of the trajectory: LCM and TCD."""

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.step import Step
from sfumato.diffusion.schedule import NoiseSchedule, scaled_linear

SIGMA_DATA = 0.5  # Luo et al. 2023 (LCM), section 4.1


def lcm(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    *,
    schedule: NoiseSchedule | None = None,
    timestep_scaling: float = 10.0,
) -> Iterator[Step]:
    """Multistep consistency sampling: each step is the clean estimate with fresh noise of the next level.

    With a schedule the estimate is blended with the latent as LCM's boundary condition has it and diffusers does
    (a part of at most 1e-5 in an ordinary run); without one it is taken as it is, as in A1111 and ComfyUI.
    Luo et al. 2023 (LCM), algorithm 3.
    """
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if schedule is not None:
            scaled = schedule.timestep(sigma) * timestep_scaling
            spread = scaled**2 + SIGMA_DATA**2
            skip = SIGMA_DATA**2 / spread / math.sqrt(1 + sigma**2)
            denoised = denoised * (scaled / math.sqrt(spread)) + x * skip
        x = denoised + noise(index) * sigma_next if sigma_next > 0 else denoised
        yield Step(index, sigma_next, x, denoised)


def tcd(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    *,
    schedule: NoiseSchedule | None = None,
    eta: float = 0.3,
) -> Iterator[Step]:
    """Strategic stochastic sampling: descend beyond the next level, then add noise to come back up to it.

    The level descended to is that of the part 1 - eta of the next timestep; the last step adds no noise and lands
    on the level of timestep part 0 or the end, whichever is higher. The schedule, Stable Diffusion's unless given,
    says which level that is. Zheng et al. 2024 (TCD), algorithm 4, with eta for its gamma.
    """
    table = scaled_linear() if schedule is None else schedule
    steps = len(sigmas) - 1
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down = sigma_next
        if eta > 0 and index < steps - 1:
            down = min(table.sigma(math.floor((1 - eta) * table.timestep(sigma_next))), sigma_next)
        x = denoised + (x - denoised) * (down / sigma)
        if down < sigma_next:
            x = x + noise(index) * math.sqrt(sigma_next**2 - down**2)
        yield Step(index, sigma_next, x, denoised)
