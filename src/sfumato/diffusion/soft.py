"""Inpainting whose mask is not only black and white: grey as a strength, or as a share that falls with the noise."""

import math
from bisect import bisect_right

import torch
import torch.nn.functional as F
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


def changed(
    known: Tensor,
    drawn: Tensor,
    weights: Tensor,
    *,
    preservation_strength: float,
    mask_influence: float,
    difference_threshold: float,
    difference_contrast: float,
) -> Tensor:
    """How much of what was drawn is taken in each cell [B, 1, h, w], by how far its latent is from what was known.

    A cell that is `difference_threshold` away is taken by half, one that is not away not at all. With `mask_influence`
    the threshold falls where `weights` [1, 1, h, w] are large, and rises where they are small. The distance is over the
    channels, first of what is farthest around a cell and then of the middle half of that. The formulas of A1111's soft
    inpainting.
    """
    strict = 1 - weights.double().clamp(0, 1) ** (preservation_strength / 2)
    leaning = 0.5 * (1 - mask_influence) + strict * mask_influence
    half = difference_threshold * leaning / (1.00001 - leaning)  # A1111's own guard: where the mask is black
    distance = torch.linalg.vector_norm(drawn.double() - known.double(), dim=1, keepdim=True)
    distance = middle_mean(middle_mean(distance, 0.9, 1.0), 0.25, 0.75)
    ratio = torch.where(distance == 0, 0.0, distance / half)
    kept = 1 / (1 + ratio**difference_contrast)
    return 1 - kept**3 * (kept * (6 * kept - 15) + 10)


def middle_mean(values: Tensor, low: float, high: float) -> Tensor:
    """The mean of the part from `low` to `high` of what is around each value, in order of size; [B, 1, h, w] float64.

    Around are two cells to each side, within the map, which count by a Gaussian that is 0 three cells away; the part
    has a weight of 1 at least, that of the cell itself.
    """
    batch, _, height, width = values.shape
    apart = torch.arange(-2, 3, dtype=torch.float64, device=values.device) ** 2
    far = math.exp(-(3**2) / 1.5**2)
    kernel = ((torch.exp(-(apart[:, None] + apart) / 1.5**2) - far) / (1 - far)).clamp(min=0).flatten()
    around = F.unfold(values, 5, padding=2)  # [B, 25, h w]
    counts = F.unfold(torch.ones_like(values), 5, padding=2) * kernel[:, None]
    around, order = around.sort(dim=1)
    ends = counts.gather(1, order).cumsum(1)
    starts = ends - counts.gather(1, order)
    whole = ends[:, -1:]
    first, last = whole * low, whole * high
    narrow = (last - first < 1).to(whole)
    centre = (first + last) / 2
    first = first + narrow * (torch.minimum(centre - 0.5, whole - 1) - first)
    last = last + narrow * (torch.minimum(centre + 0.5, whole) - last)
    parts = (torch.minimum(ends, last) - torch.maximum(starts, first)).clamp(min=0)
    return ((around * parts).sum(1) / parts.sum(1)).view(batch, 1, height, width)
