"""CFG++ for samplers of second order: steps to the guided estimate, with the noise that the unconditional one tells.

With the guided estimate G and the unconditional U, an Euler step of CFG++ is G + r (x - U), r the part of the noise
that is left: an ordinary step to G that begins at x + G - U. Chung et al. 2024, algorithm 2. Where there is no guidance
G is U, and these are the plain samplers. `unconditional` is asked where the denoiser has just been; its answer was made
in the same call.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers.dpmpp import phi_2
from sfumato.diffusion.samplers.singlestep import by_the_middle
from sfumato.diffusion.samplers.step import Step, ancestral, descend


def dpmpp_2m_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, unconditional: Denoise | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M) with CFG++: what is extrapolated is the guided estimate less the unconditional one before it.

    As its authors' code and ComfyUI's `dpmpp_2m_cfg_pp` have it. With other weights of the two it would not be the
    plain sampler of a guided estimate; the difference G - U before is taken along on purpose.
    """
    before: Tensor | None = None
    length = 0.0
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        guided, plain = both(denoise, unconditional, x, sigma)
        ratio = sigma_next / sigma
        x = descend(x + (guided - plain), guided, ratio)
        if sigma_next > 0:
            h = math.log(sigma / sigma_next)
            if before is not None and h > 0:
                x = x + (guided - before) * ((1 - ratio) * h / (2 * length))
            length = h
        before = plain
        yield Step(index, sigma_next, x, guided)


def dpmpp_2s_ancestral_cfg_pp(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    *,
    eta: float = 1.0,
    unconditional: Denoise | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2S) with fresh noise and CFG++: both halves of a step begin at x + G - U, as in ComfyUI."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        guided, plain = both(denoise, unconditional, x, sigma)
        down, up = ancestral(sigma, sigma_next, eta)
        start = x + (guided - plain)
        x = by_the_middle(denoise, start, guided, sigma, down) if down > 0 else guided
        if up > 0:
            x = x + noise(index) * up
        yield Step(index, sigma_next, x, guided)


def res_multistep_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: list[float], noise: Noise, *, unconditional: Denoise | None = None
) -> Iterator[Step]:
    """The exponential multistep of second order with CFG++: from x + G - U along the unconditional estimates.

    As ComfyUI's `res_multistep_cfg_pp`. Zhang et al. 2023 (refined exponential solver); `dpmpp_multistep` with the
    exact weight of the slope is the plain one.
    """
    before: Tensor | None = None
    length = 0.0
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        guided, plain = both(denoise, unconditional, x, sigma)
        ratio = sigma_next / sigma
        start = x + (guided - plain)
        if before is None or sigma_next == 0:
            x = descend(start, guided, ratio)
            length = math.log(sigma / sigma_next) if sigma_next > 0 else 0.0
        else:
            h = math.log(sigma / sigma_next)
            x = descend(start, plain, ratio)
            if h > 0:
                x = x + (plain - before) * (phi_2(h) * h / length)
            length = h
        before = plain
        yield Step(index, sigma_next, x, guided)


def both(denoise: Denoise, unconditional: Denoise | None, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The guided and the unconditional estimate; the same twice where there is no guidance."""
    guided = denoise(x, sigma)
    return guided, guided if unconditional is None else unconditional(x, sigma)
