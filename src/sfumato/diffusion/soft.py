"""Inpainting whose mask is not only black and white: grey as a strength, or as a share that falls with the noise."""

from bisect import bisect_right

import torch
from torch import Tensor

from sfumato.diffusion.denoiser import Denoise


def differential(denoise: Denoise, known: Tensor, strengths: Tensor, noise: Tensor, sigmas: list[float]) -> Denoise:
    """Image-to-image with a strength for each cell: it is held to what is known for the first 1 - strength of a run.

    `strengths` [1, 1, h, w] in [0, 1]: 0 is never let go, 1 never held; `sigmas` are the levels of the run. In the step
    in which a cell is let go it starts from what is known with the noise of that level, and follows the network.
    Levin and Fried 2023 (Differential Diffusion), algorithm 1, with the thresholds of diffusers' community pipeline.
    """
    rising = sigmas[::-1]
    steps = len(sigmas) - 1
    kept = 1 - strengths

    def held(progress: float) -> Tensor:
        return (kept > progress) | (strengths == 0)

    def part(sigma: float) -> float:
        """How much of the steps is done at a level; between two levels by the share of the way."""
        place = min(max(bisect_right(rising, sigma) - 1, 0), steps - 1)
        low, high = rising[place], rising[place + 1]
        share = (sigma - low) / (high - low) if high > low else 0.0
        return (steps - place - min(max(share, 0.0), 1.0)) / steps

    def following(sigma: float) -> float:
        """How much is done at the level after this one."""
        place = bisect_right(rising, sigma * (1 - 1e-9)) - 1  # levels that only rounding tells apart
        return (steps - max(place, 0)) / steps

    def constrained(x: Tensor, sigma: float) -> Tensor:
        seen = torch.where(held(part(sigma)), known + sigma * noise, x)
        return torch.where(held(following(sigma)), known, denoise(seen, sigma))

    return constrained


def soft(
    denoise: Denoise,
    known: Tensor,
    weights: Tensor,
    noise: Tensor,
    *,
    schedule_bias: float,
    preservation_strength: float,
    transition_contrast_boost: float,
) -> Denoise:
    """Inpainting whose grey cells are known at high noise and drawn at low noise, without loss of contrast between.

    `weights` [1, 1, h, w] in [0, 1]. A cell counts weight ^ (preservation_strength * sigma ^ schedule_bias); the
    estimate is mixed by that much with what is known, and made as long over the channels as the mean of both lengths to
    the power of `transition_contrast_boost`. The formulas of A1111's soft inpainting.
    """

    def blended(x: Tensor, sigma: float) -> Tensor:
        seen = torch.where(weights == 0, known + sigma * noise, x)
        drawn = denoise(seen, sigma)
        share = weights.double() ** (preservation_strength * sigma**schedule_bias)
        mixed = _mixed(known, drawn, share, transition_contrast_boost).to(drawn.dtype)
        return torch.where(weights == 0, known, torch.where(weights == 1, drawn, mixed))

    return blended


def _mixed(first: Tensor, second: Tensor, share: Tensor, power: float) -> Tensor:
    """first (1 - share) + second share, as long over the channels as the power mean of their lengths; in float64."""
    first, second = first.double(), second.double()
    mixed = first * (1 - share) + second * share
    lengths = [torch.linalg.vector_norm(each, dim=1, keepdim=True) for each in (mixed, first, second)]
    wanted = (lengths[1] ** power * (1 - share) + lengths[2] ** power * share) ** (1 / power)
    scaled: Tensor = mixed * (wanted / (lengths[0] + 1e-5))  # A1111's own guard against a length of 0
    return scaled
