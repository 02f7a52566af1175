"""What a denoising network is trained on: noise levels, targets and the weights of its errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from sfumato.diffusion.denoiser import PREDICTIONS, Prediction
from sfumato.diffusion.schedule import from_scheduler_config
from sfumato.errors import ConfigError
from sfumato.train.config import choice

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""Stable Diffusion's schedule, Rombach et al. 2022, as diffusers writes it."""

WEIGHTINGS = ("uniform", "min_snr", "clipped", "debiased")
DEBIASED_MOST = 1000.0  # of the signal-to-noise ratio, as in kohya's trainers


@dataclass(frozen=True, kw_only=True)
class DenoisingLoss:
    """What the network outputs, how timesteps are weighed, and how often it sees no words.

    `prediction`: epsilon, v_prediction or sample; a run that starts from a whole model takes the model's.
    `weighting`: "uniform"; "min_snr" with `gamma`, Hang et al. 2023; "debiased", Yu et al. 2023; or "clipped", which
    for v-prediction counts all noise levels alike down to SNR `gamma` and lower ones less. `zero_terminal_snr`: the
    schedule ends in pure noise, Lin et al. 2023, which noise prediction cannot learn. `noise_offset` shifts the noise
    of whole channels by so many standard deviations. `layout` weighs a head, dropped at export, that tells from the
    last features what each latent cell shows; only the drawn world can teach it.
    """

    prediction: str = ""
    weighting: str = "uniform"
    gamma: float = 5.0
    drop: float = 0.1
    zero_terminal_snr: bool = False
    noise_offset: float = 0.0
    layout: float = 0.0


class Objective:
    """The loss of a run with the schedule that it is over; `scheduler` as a scheduler_config.json says it.

    Raises ConfigError for what there is not, and for what cannot be learnt.
    """

    def __init__(self, loss: DenoisingLoss, prediction: str, scheduler: Mapping[str, Any]) -> None:
        self.loss, self.scheduler = loss, scheduler
        self.prediction = cast(Prediction, choice("loss.prediction", prediction, PREDICTIONS))
        choice("loss.weighting", loss.weighting, WEIGHTINGS)
        ends_in_noise = loss.zero_terminal_snr or bool(scheduler.get("rescale_betas_zero_snr"))
        if ends_in_noise and prediction == "epsilon":
            raise ConfigError(
                "A schedule of zero terminal SNR needs v_prediction or sample: from pure noise alone, the noise says "
                "nothing of the picture."
            )
        self.schedule = from_scheduler_config(self.described)
        self.sigmas = torch.tensor(self.schedule.sigmas, dtype=torch.float32)

    @property
    def described(self) -> dict[str, Any]:
        """The scheduler_config.json of the trained model."""
        described = {**self.scheduler, "prediction_type": self.prediction}
        if self.loss.zero_terminal_snr:
            described |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        return described

    def timesteps(self, uniform: Tensor) -> Tensor:
        """Training timesteps of numbers in [0, 1), [B]."""
        return (uniform * len(self.sigmas)).long().clamp(max=len(self.sigmas) - 1)

    def weight(self, sigma: Tensor) -> Tensor:
        """The weight of each sample's squared error, [B], for what the network outputs."""
        snr, gamma = sigma**-2, self.loss.gamma
        if self.loss.weighting == "uniform":
            return torch.ones_like(sigma)
        if self.loss.weighting == "clipped":
            return (snr + 1).clamp(max=gamma + 1) / (snr + 1)
        if self.loss.weighting == "debiased":
            most = snr.clamp(max=DEBIASED_MOST)
            return {"epsilon": most.rsqrt(), "v_prediction": 1 / (most + 1), "sample": most.sqrt()}[self.prediction]
        per_output = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
        return snr.clamp(max=gamma) / per_output[self.prediction]
