"""What turns a denoiser into another denoiser: guidance in its forms, and inpainting.

A wrapper sees only (x, sigma) -> clean latent, so each works inside every sampler and every other wrapper.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.diffusion.denoiser import Denoise, Prediction, from_network_output, network_output
from sfumato.diffusion.schedule import NoiseSchedule


def guide(
    conditional: Denoise,
    unconditional: Denoise,
    scale: float,
    *,
    rescale: float = 0.0,
    prediction: Prediction = "epsilon",
) -> Denoise:
    """Classifier-free guidance: away from the unconditional estimate, `scale` times as far as the conditional one.

    Scale 1 is the conditional denoiser itself. `rescale` and `prediction` are as in `rescaled`.
    Ho and Salimans 2022, equation 6.
    """
    if scale == 1:
        return conditional

    def guided(x: Tensor, sigma: float) -> Tensor:
        positive = conditional(x, sigma)
        estimate = combine(positive, unconditional(x, sigma), scale)
        return rescaled(estimate, positive, x, sigma, amount=rescale, prediction=prediction)

    return guided


def guide_doubled(
    denoise: Denoise, scale: float, *, rescale: float = 0.0, prediction: Prediction = "epsilon"
) -> Denoise:
    """As `guide`, in one call: the denoiser takes 2B latents, first B unconditional, then B conditional.

    The caller doubles the conditioning in that order, and calls the conditional branch alone at scale 1.
    """

    def guided(x: Tensor, sigma: float) -> Tensor:
        negative, positive = denoise(torch.cat([x, x]), sigma).chunk(2)
        estimate = combine(positive, negative, scale)
        return rescaled(estimate, positive, x, sigma, amount=rescale, prediction=prediction)

    return guided


def guide_by_picture(
    told: Denoise,
    shown: Denoise,
    neither: Denoise,
    scales: tuple[float, float],
    *,
    rescale: float = 0.0,
    prediction: Prediction = "epsilon",
) -> Denoise:
    """Guidance by words and by a picture: of denoisers that know both, the picture alone, and neither.

    `scales` are the words' and the picture's. Brooks et al. 2022, equation 3.
    """
    scale, picture_scale = scales

    def guided(x: Tensor, sigma: float) -> Tensor:
        positive, picture, plain = told(x, sigma), shown(x, sigma), neither(x, sigma)
        estimate = plain + (positive - picture) * scale + (picture - plain) * picture_scale
        return rescaled(estimate, positive, x, sigma, amount=rescale, prediction=prediction)

    return guided


def combine(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """The guided estimate; the same in clean-latent, noise and velocity space."""
    return unconditional + (conditional - unconditional) * scale


def rescaled(
    estimate: Tensor, conditional: Tensor, x: Tensor, sigma: float, *, amount: float, prediction: Prediction
) -> Tensor:
    """A guided estimate with the contrast of the conditional one, by an amount from 0 (none) to 1 (whole).

    What is matched is the standard deviation of the network's output for each image, so both estimates are
    converted back to it first: in clean-latent space the factor would be another one.
    Lin et al. 2023, section 3.4, equations 15 and 16.
    """
    if amount == 0:
        return estimate
    output = network_output(prediction, x, estimate, sigma)
    reference = network_output(prediction, x, conditional, sigma)
    axes = tuple(range(1, x.ndim))
    factor = reference.std(dim=axes, keepdim=True) / output.std(dim=axes, keepdim=True)
    return from_network_output(prediction, x, output * (factor * amount + (1 - amount)), sigma)


def interval(guided: Denoise, conditional: Denoise, low: float, high: float) -> Denoise:
    """Guidance only where low < sigma <= high; elsewhere the conditional estimate, in a single branch.

    Kynkaanniemi et al. 2024, equation 5.
    """

    def limited(x: Tensor, sigma: float) -> Tensor:
        return guided(x, sigma) if low < sigma <= high else conditional(x, sigma)

    return limited


def handed_over(first: Denoise, second: Denoise, is_for_second: Callable[[float], bool]) -> Denoise:
    """One denoiser at some noise levels, another at the others: an ensemble of experts.

    Balaji et al. 2022 (eDiff-I), section 4; SDXL's base and refiner, Podell et al. 2023, section 2.5.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return second(x, sigma) if is_for_second(sigma) else first(x, sigma)

    return denoise


def sigma_at(schedule: NoiseSchedule, part: float) -> float:
    """The noise level after a part of the training timesteps, from 0 (pure noise, infinite) to 1 (clean, 0).

    ComfyUI's percent; gives the bounds of `interval`.
    """
    if part <= 0:
        return math.inf
    if part >= 1:
        return 0.0
    return schedule.sigma((1 - part) * (len(schedule) - 1))


def inpaint(denoise: Denoise, known: Tensor, mask: Tensor, noise: Tensor) -> Denoise:
    """Denoise where the mask is 1; elsewhere the answer is `known`.

    The mask is [B or 1, 1, h, w] in [0, 1]. The noise is the start noise, never redrawn, so that what is kept
    follows one trajectory.
    """

    def constrained(x: Tensor, sigma: float) -> Tensor:
        x = mask * x + (1 - mask) * (known + sigma * noise)
        return mask * denoise(x, sigma) + (1 - mask) * known

    return constrained
