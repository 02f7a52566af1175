"""Which noise levels a run visits: one function for each rule, from a schedule and a number of steps.

Every function returns `steps + 1` levels that decrease from the start to `grid.end`. No level appears twice, save
that the end may repeat the lowest level (DDIM without an offset ends where its last step begins); samplers then
leave the latent as it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sfumato.diffusion.beta_distribution import beta_quantile
from sfumato.diffusion.schedule import NoiseSchedule
from sfumato.errors import RequestError


@dataclass(frozen=True)
class Grid:
    """What the rules of one family may differ in; a rule reads what concerns it and ignores the rest.

    end               the last level: 0, or the schedule's level at timestep 0
    offset            added to the timesteps of `leading` (diffusers' steps_offset)
    drop_lowest       lay one level more than steps and drop the lowest: diffusers' DPM-Solver, UniPC and DEIS
    whole_timesteps   round the timesteps of `linspace`; else levels between entries are interpolated linearly
    highest, lowest   the ends of the rules that are laid in sigma; None: the schedule's own
    original_steps    the grid that LCM and TCD were distilled on
    """

    end: float = 0.0
    offset: int = 0
    drop_lowest: bool = False
    whole_timesteps: bool = True
    highest: float | None = None
    lowest: float | None = None
    original_steps: int = 50  # Luo et al. 2023, section 4.3

    def ends(self, schedule: NoiseSchedule) -> tuple[float, float]:
        """The highest and the lowest level of a rule that is laid in sigma."""
        highest = schedule.sigmas[-1] if self.highest is None else self.highest
        return highest, schedule.sigmas[0] if self.lowest is None else self.lowest


PLAIN = Grid()

Spacing = Callable[[NoiseSchedule, int, Grid], list[float]]


def leading(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Every (T // steps)-th timestep from `offset` up: DDIM's and PNDM's rule. Song et al. 2021.

    The offset is left out where it would lead beyond the table (diffusers' DDIM fails there: 1000 steps from 1 up).
    """
    _check(schedule, steps)
    knots = min(steps + 1, len(schedule)) if grid.drop_lowest else steps
    stride = len(schedule) // knots
    offset = min(grid.offset, len(schedule) - 1 - (knots - 1) * stride)
    timesteps = [index * stride + offset for index in range(knots)][-steps:]
    return _at_timesteps(schedule, timesteps[::-1], grid.end)


def trailing(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Timesteps back from T - 1 in strides of T / steps, rounded. Lin et al. 2023, section 3.3."""
    _check(schedule, steps)
    stride = len(schedule) / steps
    return _at_timesteps(schedule, [round(len(schedule) - index * stride) - 1 for index in range(steps)], grid.end)


def linspace(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Timesteps evenly spaced from T - 1 to 0, both included."""
    _check(schedule, steps)
    knots = steps + 1 if grid.drop_lowest else steps
    timesteps = _line(len(schedule) - 1.0, 0.0, knots)[:steps]
    if grid.whole_timesteps:
        return _at_timesteps(schedule, _distinct([round(t) for t in timesteps], len(schedule)), grid.end)
    return _ended([schedule.sigma(t, "linear") for t in timesteps], grid.end)


def normal(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """As linspace, with levels between table entries interpolated in log sigma: k-diffusion's `get_sigmas`."""
    _check(schedule, steps)
    return _ended([schedule.sigma(t) for t in _line(len(schedule) - 1.0, 0.0, steps)], grid.end)


def sgm_uniform(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """As normal, with one timestep more than steps of which the last, 0, is dropped: Stability's generative-models."""
    _check(schedule, steps)
    return _ended([schedule.sigma(t) for t in _line(len(schedule) - 1.0, 0.0, steps + 1)[:steps]], grid.end)


def simple(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Table entries counted down from the highest in strides of T / steps, rounded down: ComfyUI's `simple`."""
    _check(schedule, steps)
    stride = len(schedule) / steps
    return _at_timesteps(schedule, [len(schedule) - 1 - int(index * stride) for index in range(steps)], grid.end)


def ddim_uniform(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Every (T // steps)-th table entry from timestep 1 up: ComfyUI's and A1111's rule for DDIM.

    ComfyUI runs on to the end of the table, so that it takes more steps than asked for where steps does not divide
    T; here the number of steps is what was asked for, and the levels above are left out.
    """
    _check(schedule, steps)
    stride = len(schedule) // steps
    first = min(1, len(schedule) - 1 - (steps - 1) * stride)
    return _at_timesteps(schedule, [first + index * stride for index in range(steps)][::-1], grid.end)


def karras(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN, *, rho: float = 7.0) -> list[float]:
    """Noise levels evenly spaced in sigma^(1/rho). rho 7 spends most steps at low noise.

    Karras et al. 2022, equation 5.
    """
    _check_steps(steps)
    highest, lowest = grid.ends(schedule)
    roots = _line(highest ** (1 / rho), lowest ** (1 / rho), steps)
    return _ended(_between(highest, [root**rho for root in roots], lowest), grid.end)


def exponential(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Noise levels evenly spaced in log sigma."""
    return polyexponential(schedule, steps, grid, rho=1.0)


def polyexponential(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN, *, rho: float = 1.0) -> list[float]:
    """Noise levels whose logarithms fall as a power of the remaining part of the run: k-diffusion's rule.

    rho 1, its default and A1111's, is `exponential`.
    """
    _check_steps(steps)
    highest, lowest = grid.ends(schedule)
    parts = [part**rho for part in _line(1.0, 0.0, steps)]
    levels = [math.exp(part * math.log(highest) + (1 - part) * math.log(lowest)) for part in parts]
    return _ended(_between(highest, levels, lowest), grid.end)


def kl_optimal(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Noise levels whose arc tangents are evenly spaced: optimal for Gaussian data.

    Sabour et al. 2024 (Align Your Steps), equation 8.
    """
    _check_steps(steps)
    highest, lowest = grid.ends(schedule)
    levels = [math.tan(angle) for angle in _line(math.atan(highest), math.atan(lowest), steps)]
    return _ended(_between(highest, levels, lowest), grid.end)


def beta(
    schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN, *, alpha: float = 0.6, beta: float = 0.6
) -> list[float]:
    """Timesteps at the quantiles of a beta distribution: more steps at both ends. Lee et al. 2024, section 4.

    ComfyUI drops a timestep that rounds to the one before it; here it moves to the next free one, so that the
    number of steps is what was asked for.
    """
    _check(schedule, steps)
    quantiles = [beta_quantile(1 - index / steps, alpha, beta) for index in range(steps)]
    timesteps = [round(quantile * (len(schedule) - 1)) for quantile in quantiles]
    return _at_timesteps(schedule, _distinct(timesteps, len(schedule)), grid.end)


def beta_sigmas(
    schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN, *, alpha: float = 0.6, beta: float = 0.6
) -> list[float]:
    """Noise levels at the quantiles of a beta distribution: diffusers' `use_beta_sigmas`, A1111's Beta."""
    _check_steps(steps)
    highest, lowest = grid.ends(schedule)
    levels = [lowest + beta_quantile(part, alpha, beta) * (highest - lowest) for part in _line(1.0, 0.0, steps)]
    return _ended(_between(highest, levels, lowest), grid.end)


ALIGN_YOUR_STEPS_SD15 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGN_YOUR_STEPS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Levels for ten steps, as published with Sabour et al. 2024; the last is replaced by the end."""


def align_your_steps(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """The optimised levels for Stable Diffusion 1.5; other step counts interpolate them log-linearly.

    Sabour et al. 2024.
    """
    return _interpolated(ALIGN_YOUR_STEPS_SD15, steps, grid.end)


def align_your_steps_sdxl(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """The optimised levels for Stable Diffusion XL; other step counts interpolate them log-linearly."""
    return _interpolated(ALIGN_YOUR_STEPS_SDXL, steps, grid.end)


def distilled(schedule: NoiseSchedule, steps: int, grid: Grid = PLAIN) -> list[float]:
    """Timesteps picked from the coarse grid that a consistency model was distilled on: LCM's and TCD's rule.

    Luo et al. 2023. More steps than that grid has are picked from the whole table.
    """
    _check(schedule, steps)
    coarse = max(min(grid.original_steps, len(schedule)), 1)
    if steps > coarse:
        coarse = len(schedule)
    stride = len(schedule) // coarse
    timesteps = [(coarse - index * coarse // steps) * stride - 1 for index in range(steps)]
    return _at_timesteps(schedule, timesteps, grid.end)


SPACINGS: dict[str, Spacing] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "normal": normal,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "beta_sigmas": beta_sigmas,
    "kl_optimal": kl_optimal,
    "align_your_steps": align_your_steps,
    "align_your_steps_sdxl": align_your_steps_sdxl,
    "distilled": distilled,
}

LAID_IN_TIMESTEPS = frozenset(
    {"leading", "trailing", "linspace", "normal", "sgm_uniform", "simple", "ddim_uniform", "beta", "distilled"}
)
"""The rules that need a training timestep for each step."""

LAID_IN_SIGMA = frozenset({"karras", "exponential", "polyexponential", "kl_optimal", "beta_sigmas"})
"""The rules that read `highest` and `lowest`."""


StrengthRule = Literal["share", "a1111", "whole"]


def strength_steps(steps: int, strength: float, rule: StrengthRule = "share") -> tuple[int, int]:
    """How many steps an image-to-image run lays, and how many of the last of them it runs. The rules are

    share   int(n * strength) of n: diffusers'
    a1111   int(min(strength, 0.999) * n) + 1 of n: stable-diffusion-webui, `setup_img2img_steps`
    whole   n of int(n / strength): ComfyUI's KSampler, and stable-diffusion-webui with `img2img_fix_steps`

    Raises RequestError when strength is not in [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise RequestError(f"strength is {strength}; it must be between 0 and 1.", field="strength")
    if rule == "a1111":
        return steps, int(min(strength, 0.999) * steps) + 1
    if rule == "whole" and strength > 0.0:
        return int(steps / strength), steps
    return steps, int(steps * strength)


def tail(lay: Callable[[int], list[float]], steps: int, strength: float, rule: StrengthRule = "share") -> list[float]:
    """The levels of an image-to-image run, where `lay(n)` are those of a run of n whole steps.

    Without a step to run nothing is left but the end. Raises RequestError when strength is not in [0, 1].
    """
    laid, run = strength_steps(steps, strength, rule)
    return lay(laid)[laid - run :]


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise RequestError(f"steps is {steps}; it must be at least 1.", field="steps")


def _check(schedule: NoiseSchedule, steps: int) -> None:
    """The rules laid in timesteps cannot take more steps than there are timesteps."""
    _check_steps(steps)
    if steps > len(schedule):
        raise RequestError(
            f"steps is {steps}; this spacing has at most one step for each of the {len(schedule)} training timesteps.",
            field="steps",
        )


def _line(first: float, last: float, count: int) -> list[float]:
    """`count` evenly spaced values; a single one is the first."""
    if count == 1:
        return [first]
    return [first + (last - first) * index / (count - 1) for index in range(count)]


def _between(highest: float, levels: list[float], lowest: float) -> list[float]:
    """Levels whose ends are exact, so that they are found in the table again."""
    return [highest, *levels[1:-1], lowest] if len(levels) > 1 else [highest]


def _ended(levels: list[float], end: float) -> list[float]:
    return [*levels, min(end, levels[-1])]


def _at_timesteps(schedule: NoiseSchedule, timesteps: list[int], end: float) -> list[float]:
    highest = len(schedule) - 1
    return _ended([schedule.sigmas[min(timestep, highest)] for timestep in timesteps], end)


def _distinct(timesteps: list[int], count: int) -> list[int]:
    """Falling timesteps with repetitions moved to the next free one, within 0 .. count - 1."""
    distinct: list[int] = []
    for timestep in timesteps:
        distinct.append(min(timestep, distinct[-1] - 1) if distinct else timestep)
    floor = 0
    for index in reversed(range(len(distinct))):
        distinct[index] = max(distinct[index], floor)
        floor = distinct[index] + 1
    return [min(timestep, count - 1 - index) for index, timestep in enumerate(distinct)]


def _interpolated(levels: tuple[float, ...], steps: int, end: float) -> list[float]:
    """A table of levels read at `steps + 1` evenly spaced places, log-linearly; the last becomes the end."""
    _check_steps(steps)
    places = _line(0.0, len(levels) - 1.0, steps + 1)[:steps]
    found = []
    for place in places:
        low = min(int(place), len(levels) - 2)
        weight = place - low
        found.append(math.exp((1 - weight) * math.log(levels[low]) + weight * math.log(levels[low + 1])))
    return _ended(found, end)
