"""What guidance does with several estimates of one clean latent: ways to combine two, and other branches to leave.

Each works on denoisers, so that it works inside every sampler. A branch that several ask for is computed once.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.diffusion.denoiser import Denoise, Prediction, scalings
from sfumato.diffusion.wrappers import combine, rescaled

Combine = Callable[[Tensor, Tensor, float], Tensor]
"""(conditional, unconditional, scale) -> guided estimate; at scale 1, or with equal estimates, near the conditional."""

Scale = Callable[[float], float]
"""Noise level -> how strong a guidance is there."""


def constant(scale: float) -> Scale:
    """The same at every level."""
    return lambda sigma: scale


def once(denoise: Denoise) -> Denoise:
    """The denoiser, which keeps its last answer for others that ask at the same latent and level."""
    last: tuple[Tensor, float, Tensor] | None = None

    def remembered(x: Tensor, sigma: float) -> Tensor:
        nonlocal last
        if last is None or last[0] is not x or last[1] != sigma:
            last = (x, sigma, denoise(x, sigma))
        return last[2]

    return remembered


def halves(denoise: Denoise) -> tuple[Denoise, Denoise]:
    """The unconditional and the conditional branch of a denoiser of 2B latents in that order; one call answers both."""
    both = once(lambda x, sigma: denoise(torch.cat([x, x]), sigma))
    return lambda x, sigma: both(x, sigma).chunk(2)[0], lambda x, sigma: both(x, sigma).chunk(2)[1]


def steered(conditional: Denoise, unconditional: Denoise, scale: Scale, *, together: Combine = combine) -> Denoise:
    """Guidance whose strength may depend on the level, and whose way to combine both estimates may be another."""
    return lambda x, sigma: together(conditional(x, sigma), unconditional(x, sigma), scale(sigma))


def with_contrast(guided: Denoise, conditional: Denoise, amount: float, prediction: Prediction) -> Denoise:
    """A guided denoiser with the contrast of the conditional one: `rescaled`."""

    def contrasted(x: Tensor, sigma: float) -> Tensor:
        estimate = guided(x, sigma)
        return rescaled(estimate, conditional(x, sigma), x, sigma, amount=amount, prediction=prediction)

    return contrasted


class Projected:
    """Adaptive projected guidance; one object for one run, because of the momentum.

    Sadat et al. 2024, algorithm 1: `eta` for what is parallel to the conditional estimate, `threshold` for the norm of
    the difference (0: none), `momentum` for its running sum. With 1, 0, 0 it is classifier-free guidance.
    """

    def __init__(self, eta: float, threshold: float, momentum: float) -> None:
        self.eta = eta
        self.threshold = threshold
        self.momentum = momentum
        self.sum: Tensor | None = None

    def __call__(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        difference = conditional - unconditional
        if self.momentum:
            difference = difference if self.sum is None else difference + self.momentum * self.sum
            self.sum = difference
        axes = tuple(range(1, difference.ndim))
        if self.threshold > 0:
            norm = torch.linalg.vector_norm(difference, dim=axes, keepdim=True)
            difference = difference * (self.threshold / norm).clamp(max=1.0)
        direction = conditional.double()
        direction = direction / torch.linalg.vector_norm(direction, dim=axes, keepdim=True).clamp(min=1e-12)
        along = (difference.double() * direction).sum(axes, keepdim=True) * direction
        update: Tensor = difference + ((self.eta - 1) * along).to(difference.dtype)
        return conditional + (scale - 1) * update


@dataclass(frozen=True)
class Thresholded:
    """Guidance whose values spread as far as those of guidance at `mimic_scale`, for each picture by itself.

    The formulas of the extension sd-dynamic-thresholding, after Saharia et al. 2022 (Imagen), section 2.3: of the
    guided values, less their mean, those beyond the larger of the mimic's extreme and their own `percentile` are
    clamped, and all are scaled to the mimic's extreme.
    """

    mimic_scale: float
    percentile: float = 1.0
    separate_channels: bool = True
    start: Literal["mean", "zero"] = "mean"
    measure: Literal["ad", "std"] = "ad"
    phi: float = 1.0

    def __call__(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        guided = combine(conditional, unconditional, scale)
        flat = guided.flatten(2)
        centred = flat - flat.mean(2, keepdim=True)
        mimic = combine(conditional, unconditional, self.mimic_scale).flatten(2)
        aim, spread = self._spread(mimic - mimic.mean(2, keepdim=True), 1.0), self._spread(centred, self.percentile)
        if self.start == "zero":
            result = flat * (aim / spread)
        elif self.measure == "std":
            result = flat - centred + centred / spread * aim
        else:
            most = torch.maximum(aim, spread)
            result = flat - centred + centred.clamp(-most, most) / most * aim
        return torch.lerp(guided, result.view_as(guided), self.phi)

    def _spread(self, centred: Tensor, percentile: float) -> Tensor:
        """How far values [B, C, n] lie from 0: [B, C, 1], or [B, 1, 1] over all channels."""
        values = centred if self.separate_channels else centred.flatten(1)[:, None]
        if self.measure == "std":
            return values.std(2, keepdim=True)
        if percentile == 1.0:
            return values.abs().amax(2, keepdim=True)
        return torch.quantile(values.abs(), percentile, dim=2, keepdim=True)


def plus_plus(strength: float, sigmas: list[float], descend_to: Callable[[float, float], float]) -> Scale:
    """The scale of ordinary guidance whose Euler step is CFG++'s with `strength`, the paper's lambda from 0 to 1.

    CFG++ steps to the guided estimate with the unconditional noise: x' = G + r (x - U), with r the part of the noise
    that is left and G = U + lambda (C - U). That is the Euler step x' = D + r (x - D) to D = U + lambda / (1 - r)
    (C - U): guidance that grows as steps get short. `descend_to` (level, next level) is where the sampler goes before
    it adds fresh noise. Chung et al. 2024, algorithm 2.
    """
    rising = sorted(sigmas)

    def scale(sigma: float) -> float:
        place = bisect_left(rising, sigma * (1 - 1e-9))  # levels that only rounding tells apart
        lower = rising[place - 1] if place else 0.0
        left = descend_to(sigma, lower) / sigma
        return strength / (1 - left)

    return scale


def away(guided: Denoise, conditional: Denoise, other: Denoise, scale: Scale) -> Denoise:
    """The guided estimate, moved away from what another denoiser answers: perturbed-attention guidance and its like.

    Ahn et al. 2024, equation 16, beside classifier-free guidance as diffusers adds it.
    """

    def moved(x: Tensor, sigma: float) -> Tensor:
        strength = scale(sigma)
        estimate = guided(x, sigma)
        return estimate if strength == 0 else estimate + (conditional(x, sigma) - other(x, sigma)) * strength

    return moved


@dataclass(frozen=True)
class Degrade:
    """A clean latent, blurred where attention goes: what self-attention guidance moves away from.

    `looked_at` returns, after the branch has been asked, where that is: a mask [B, 1, h, w] of zeros and ones. `around`
    says whether the map goes on at the other edge along x and along y.
    """

    looked_at: Callable[[Tensor], Tensor]
    blur: float
    around: tuple[bool, bool] = (False, False)

    def __call__(self, clean: Tensor) -> Tensor:
        mask = self.looked_at(clean)
        return mask * blurred(clean, self.blur, self.around) + (1 - mask) * clean


def self_attention(
    guided: Denoise, branch: Denoise, again: Denoise, degrade: Degrade, scale: float, prediction: Prediction
) -> Denoise:
    """The guided estimate, moved away from what the branch answers when what it looks at is blurred.

    `branch` is asked first and tells where it looked; `again` is the same branch, asked at the degraded latent with
    the same noise. The difference is that of the network's outputs, as in diffusers. Hong et al. 2022, equation 16.
    """

    def moved(x: Tensor, sigma: float) -> Tensor:
        estimate, clean = guided(x, sigma), branch(x, sigma)
        degraded = x + (degrade(clean) - clean)
        skip = scalings(prediction, sigma).c_skip
        return estimate + scale * ((clean - again(degraded, sigma)) - skip * (x - degraded))

    return moved


BLUR_CELLS = 9  # across; Hong et al. 2022, as released


def blurred(x: Tensor, deviation: float, around: tuple[bool, bool] = (False, False)) -> Tensor:
    """A map [B, C, h, w] under a Gaussian of 9 x 9 cells; beyond an edge it is mirrored, or goes on at the other."""
    reach = BLUR_CELLS // 2
    places = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-0.5 * (places / deviation) ** 2)
    weights = weights / weights.sum()
    for pad, goes_on in zip(((reach, reach, 0, 0), (0, 0, reach, reach)), around, strict=True):
        x = F.pad(x, pad, mode="circular" if goes_on else "reflect")
    kernel = (weights[:, None] * weights).expand(x.shape[1], 1, BLUR_CELLS, BLUR_CELLS)
    return F.conv2d(x, kernel, groups=x.shape[1])


def received_mask(received: Tensor, latent: Tensor, cells: tuple[int, int]) -> Tensor:
    """Where a cell gets more than its share of attention: [B, L] on a map of `cells` to [B, 1, h, w] of the latent."""
    mask = (received > 1.0).to(latent.dtype).reshape(-1, 1, *cells)
    return F.interpolate(mask, size=latent.shape[2:], mode="nearest")


def halved(cells: tuple[int, int], times: int) -> tuple[int, int]:
    """Rows and columns after convolutions with stride 2, which round up."""
    return math.ceil(cells[0] / 2**times), math.ceil(cells[1] / 2**times)
