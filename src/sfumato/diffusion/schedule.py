"""The noise schedule: the standard deviation of the noise at every training timestep, and the way back.

A schedule is one table, `sigmas[t]`, in units of the clean latent: x = z + sigma * noise. The variance-preserving
quantities follow from it: alphas_cumprod = 1 / (1 + sigma^2).
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from sfumato.errors import ConfigError

TimestepRule = Literal["log", "linear", "round", "truncate", "nearest"]
"""How a noise level between two table entries becomes a timestep.

log       interpolated in log sigma: k-diffusion, A1111, diffusers' Euler with Karras sigmas
linear    interpolated in sigma: diffusers' Euler, Heun and LMS without Karras sigmas
round     as log, then to the nearest integer: diffusers' DPM-Solver and UniPC with Karras sigmas
truncate  as log, then down to an integer: diffusers' DPM-Solver and UniPC with exponential or beta sigmas
nearest   the table entry that is nearest in log sigma: ComfyUI
"""

ZERO_SNR_ALPHAS_CUMPROD = 2.0**-24  # diffusers' stand-in for 0 in the last entry: sigma 4096 instead of infinity


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise levels at the training timesteps 0 .. T-1, strictly increasing.

    Raises ConfigError when the table is empty, not finite, not positive or not increasing.
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sigmas:
            raise ConfigError("A noise schedule needs at least one noise level; this one is empty.")
        if not all(math.isfinite(sigma) and sigma > 0 for sigma in self.sigmas):
            raise ConfigError("A noise schedule's levels must be finite and above 0; check the betas it is made from.")
        if any(high <= low for low, high in pairwise(self.sigmas)):
            raise ConfigError("A noise schedule's levels must increase with the timestep; check the betas.")

    def __len__(self) -> int:
        return len(self.sigmas)

    @cached_property
    def log_sigmas(self) -> tuple[float, ...]:
        """The natural logarithm of every noise level."""
        return tuple(math.log(sigma) for sigma in self.sigmas)

    @cached_property
    def alphas_cumprod(self) -> tuple[float, ...]:
        """The share of the clean latent's variance that is left at each timestep, 1 / (1 + sigma^2)."""
        return tuple(1.0 / (1.0 + sigma * sigma) for sigma in self.sigmas)

    def sigma(self, timestep: float, rule: Literal["log", "linear"] = "log") -> float:
        """The noise level at a timestep, exact on integers; timesteps outside the table are clamped to its ends."""
        timestep = min(max(timestep, 0.0), len(self) - 1.0)
        low = int(timestep)
        weight = timestep - low
        if weight == 0:
            return self.sigmas[low]
        if rule == "linear":
            return (1 - weight) * self.sigmas[low] + weight * self.sigmas[low + 1]
        return math.exp((1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[low + 1])

    def timestep(self, sigma: float, rule: TimestepRule = "log") -> float:
        """The timestep of a noise level, exact on table entries; levels outside the table are clamped to its ends."""
        if rule == "nearest":
            return self.nearest(sigma)
        high = bisect_left(self.sigmas, sigma)
        if high == len(self):
            return len(self) - 1.0
        if high == 0 or self.sigmas[high] == sigma:
            return float(high)
        low = high - 1
        if rule == "linear":
            return low + (sigma - self.sigmas[low]) / (self.sigmas[high] - self.sigmas[low])
        between = low + (math.log(sigma) - self.log_sigmas[low]) / (self.log_sigmas[high] - self.log_sigmas[low])
        if rule == "round":
            return float(round(between))
        return float(math.floor(between)) if rule == "truncate" else between

    def nearest(self, sigma: float) -> float:
        """The integer timestep whose noise level is nearest in log sigma, as a float."""
        if sigma <= self.sigmas[0]:
            return 0.0
        high = min(bisect_left(self.sigmas, sigma), len(self) - 1)
        target = math.log(sigma)
        above = self.log_sigmas[high] - target
        below = target - self.log_sigmas[high - 1] if high > 0 else math.inf
        return float(high if above < below else high - 1)


def from_betas(betas: Sequence[float], *, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """The schedule of a table of variances, one for each training timestep, each in [0, 1).

    The product is taken in float64, as in CompVis; diffusers takes it in float32, which differs by up to 1.3e-5.
    With `zero_terminal_snr` the table is rescaled to end in pure noise (Lin et al. 2023, algorithm 1); the
    infinite last level is then 4096, diffusers' clamp.
    """
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError("A noise schedule's betas must be finite, from 0 to below 1; check the betas or their ends.")
    alphas_cumprod = np.cumprod(1.0 - np.asarray(betas, dtype=np.float64))
    if zero_terminal_snr:
        root = np.sqrt(alphas_cumprod)
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        alphas_cumprod = root**2
        alphas_cumprod[-1] = ZERO_SNR_ALPHAS_CUMPROD
    with np.errstate(divide="ignore", invalid="ignore"):  # a zero or negative product is refused by NoiseSchedule
        sigmas = np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod)
    return NoiseSchedule(tuple(sigmas.tolist()))


def linear(
    beta_start: float = 0.0001, beta_end: float = 0.02, timesteps: int = 1000, *, zero_terminal_snr: bool = False
) -> NoiseSchedule:
    """Betas evenly spaced; the defaults are those of Ho et al. 2020."""
    return from_betas(np.linspace(beta_start, beta_end, timesteps).tolist(), zero_terminal_snr=zero_terminal_snr)


def scaled_linear(
    beta_start: float = 0.00085, beta_end: float = 0.012, timesteps: int = 1000, *, zero_terminal_snr: bool = False
) -> NoiseSchedule:
    """Betas whose square roots are evenly spaced; the defaults are Stable Diffusion's (Rombach et al. 2022)."""
    roots = np.linspace(beta_start**0.5, beta_end**0.5, timesteps)
    return from_betas((roots**2).tolist(), zero_terminal_snr=zero_terminal_snr)


def squared_cosine(timesteps: int = 1000, max_beta: float = 0.999, *, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """Betas from alphas_cumprod = cos^2((t/T + 0.008) / 1.008 * pi/2); Nichol and Dhariwal 2021, equation 17."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    levels = [alpha_bar(t / timesteps) for t in range(timesteps + 1)]
    betas = [min(1 - after / before, max_beta) for before, after in pairwise(levels)]
    return from_betas(betas, zero_terminal_snr=zero_terminal_snr)


BETA_DEFAULTS: dict[str, tuple[float, float, str]] = {
    "HeunDiscreteScheduler": (0.00085, 0.012, "linear"),
    "KDPM2DiscreteScheduler": (0.00085, 0.012, "linear"),
    "KDPM2AncestralDiscreteScheduler": (0.00085, 0.012, "linear"),
    "DPMSolverSDEScheduler": (0.00085, 0.012, "linear"),
    "LCMScheduler": (0.00085, 0.012, "scaled_linear"),
    "TCDScheduler": (0.00085, 0.012, "scaled_linear"),
}
"""beta_start, beta_end and beta_schedule where a diffusers class leaves its siblings' 0.0001, 0.02 and linear."""

NEVER_RESCALE = frozenset(
    {
        "PNDMScheduler",
        "HeunDiscreteScheduler",
        "LMSDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSDEScheduler",
        "DPMSolverSinglestepScheduler",
        "DEISMultistepScheduler",
    }
)
"""Classes of diffusers that do not read rescale_betas_zero_snr."""


def from_scheduler_config(config: Mapping[str, object]) -> NoiseSchedule:
    """The schedule that a diffusers `scheduler_config.json` describes, with its class's own defaults.

    Raises ConfigError for a beta schedule that sfumato does not have, or a value of the wrong type.
    """
    name = str(config.get("_class_name"))
    defaults = BETA_DEFAULTS.get(name, (0.0001, 0.02, "linear"))
    zero_terminal_snr = bool(config.get("rescale_betas_zero_snr", False)) and name not in NEVER_RESCALE
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, Sequence) or not all(isinstance(beta, int | float) for beta in trained):
            raise ConfigError(f"trained_betas must be a list of numbers, not {type(trained).__name__}.")
        return from_betas([float(beta) for beta in trained], zero_terminal_snr=zero_terminal_snr)
    start = _number(config, "beta_start", defaults[0])
    end = _number(config, "beta_end", defaults[1])
    timesteps = int(_number(config, "num_train_timesteps", 1000))
    kind = config.get("beta_schedule", defaults[2])
    if kind == "linear":
        return linear(start, end, timesteps, zero_terminal_snr=zero_terminal_snr)
    if kind == "scaled_linear":
        return scaled_linear(start, end, timesteps, zero_terminal_snr=zero_terminal_snr)
    if kind == "squaredcos_cap_v2":
        return squared_cosine(timesteps, zero_terminal_snr=zero_terminal_snr)
    raise ConfigError(
        f"beta_schedule {kind!r} is not one that sfumato has; it has linear, scaled_linear and squaredcos_cap_v2, "
        "and takes any other as trained_betas."
    )


def _number(config: Mapping[str, object], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} must be a number, not {value!r}.")
    return float(value)
