"""From a network to a denoiser, and from a denoiser's point of view to the target of training.

A network sees the variance-preserving latent c_in * x and answers with noise, velocity or a clean latent. A
denoiser hides that: (x, sigma) -> estimate of the clean latent. The same algebra, read backwards, is what a
network is trained on, so a network that outputs `target` exactly makes the denoiser return the clean latent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from sfumato.diffusion.schedule import NoiseSchedule, TimestepRule
from sfumato.errors import ConfigError

Denoise = Callable[[Tensor, float], Tensor]
"""(x, sigma) -> estimate of the clean latent. x = z + sigma * noise, [B, C, h, w]."""

Network = Callable[[Tensor, Tensor], Tensor]
"""(c_in * x [B, C, h, w], timestep [B] float) -> prediction [B, C, h, w]."""

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What the network outputs: the noise, the velocity (Salimans and Ho 2022), or the clean latent."""

Lookup = Callable[[float], float]
"""Noise level -> timestep."""

PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Scalings:
    """denoised = c_skip * x + c_out * network(c_in * x); Karras et al. 2022, equation 7."""

    c_skip: float
    c_out: float
    c_in: float


def scalings(prediction: Prediction, sigma: float) -> Scalings:
    """The scalings of a prediction type at a noise level. Raises ConfigError for an unknown prediction."""
    variance = 1.0 + sigma * sigma
    c_in = 1.0 / math.sqrt(variance)
    if prediction == "epsilon":
        return Scalings(1.0, -sigma, c_in)
    if prediction == "v_prediction":
        return Scalings(1.0 / variance, -sigma * c_in, c_in)
    if prediction == "sample":
        return Scalings(0.0, 1.0, c_in)
    raise ConfigError(f"prediction_type {prediction!r} is not one of {', '.join(PREDICTIONS)}.")


def denoiser(
    network: Network, schedule: NoiseSchedule, prediction: Prediction, rule: TimestepRule | Lookup = "log"
) -> Denoise:
    """A network as a denoiser: scales its input and output, and looks up the timestep of a noise level.

    `rule` is one of the schedule's, or a function from noise level to timestep (`Sampling.lookup`).
    """
    lookup = rule if callable(rule) else partial(schedule.timestep, rule=rule)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        scaling = scalings(prediction, sigma)
        timestep = torch.full((x.shape[0],), lookup(sigma), dtype=torch.float32, device=x.device)
        output = network(x * scaling.c_in, timestep).to(x.dtype)
        return output * scaling.c_out + x * scaling.c_skip

    return denoise


def network_output(prediction: Prediction, x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """What the network would have output for a denoised latent: the denoiser's scalings solved for it. sigma > 0."""
    scaling = scalings(prediction, sigma)
    return (denoised - x * scaling.c_skip) / scaling.c_out


def from_network_output(prediction: Prediction, x: Tensor, output: Tensor, sigma: float) -> Tensor:
    """The clean latent that a network output stands for; the inverse of `network_output`."""
    scaling = scalings(prediction, sigma)
    return output * scaling.c_out + x * scaling.c_skip


def network_input(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What the network sees in training: c_in * (clean + sigma * noise), of unit variance. sigma is [B]."""
    sigma = _per_sample(sigma, clean)
    return (clean + sigma * noise) / (1.0 + sigma**2).sqrt()


def target(prediction: Prediction, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What the network should output for `network_input(clean, noise, sigma)`. sigma is [B].

    Raises ConfigError for an unknown prediction.
    """
    if prediction == "epsilon":
        return noise
    if prediction == "v_prediction":
        sigma = _per_sample(sigma, clean)
        return (noise - sigma * clean) / (1.0 + sigma**2).sqrt()
    if prediction == "sample":
        return clean
    raise ConfigError(f"prediction_type {prediction!r} is not one of {', '.join(PREDICTIONS)}.")


def _per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1] in the latent's precision."""
    return sigma.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
