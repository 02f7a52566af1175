"""A way to sample, as a value: sampler, spacing, and the conditions at both ends that users know under one name."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor

from sfumato.diffusion.denoiser import Denoise, Lookup, Prediction
from sfumato.diffusion.guidance import Scale, constant, plus_plus
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.samplers import SAMPLERS, TAKES_SCHEDULE, TAKES_UNCONDITIONAL, Step
from sfumato.diffusion.samplers.step import ancestral
from sfumato.diffusion.schedule import NoiseSchedule, TimestepRule
from sfumato.diffusion.spacing import LAID_IN_SIGMA, SPACINGS, Grid
from sfumato.errors import RequestError

Option = float | int | bool | str | tuple[int, ...]
End = Literal["zero", "first"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Everything that turns a number of steps and a start noise into a trajectory.

    sampler, options     a key of SAMPLERS, and the keyword arguments that differ from its defaults
    spacing              a key of SPACINGS
    prediction           what the network outputs, where a scheduler config says so; None: as the model has it
    rule                 the timesteps of the run's own levels; levels between them are looked up in log sigma
    enter                start at noise * sqrt(1 + sigma^2), which has the variance of a noised latent, or at
                         noise * sigma (diffusers' Euler family with linspace or trailing spacing, A1111)
    end                  the last level: 0, or the level of timestep 0 (diffusers' set_alpha_to_one=False)
    leaves               a run that ends above 0 hands over x / sqrt(1 + end^2), or x as it is (diffusers' Euler)
    offset, drop_lowest, whole_timesteps, original_steps   see `Grid`
    bounds               the spacing whose first and last level bound a rule laid in sigma (diffusers' Euler
                         family); None: the schedule's own ends
    discard_penultimate  lay one step more and leave out the last level but one (A1111 and ComfyUI for DPM2)
    plus_plus            guidance is CFG++'s, with this times the scale of a request as its lambda; None: ordinary

    Raises RequestError for an unknown sampler or spacing.
    """

    sampler: str
    spacing: str
    options: tuple[tuple[str, Option], ...] = ()
    prediction: Prediction | None = None
    rule: TimestepRule = "log"
    enter: Literal["unit_variance", "highest"] = "unit_variance"
    end: End = "zero"
    leaves: Literal["unit_variance", "as_is"] = "unit_variance"
    offset: int = 0
    drop_lowest: bool = False
    whole_timesteps: bool = True
    original_steps: int = 50
    bounds: str | None = None
    discard_penultimate: bool = False
    plus_plus: float | None = None

    def __post_init__(self) -> None:
        _known("sampler", self.sampler, SAMPLERS)
        _known("spacing", self.spacing, SPACINGS)
        if self.bounds is not None:
            _known("spacing", self.bounds, SPACINGS)

    def sigmas(self, schedule: NoiseSchedule, steps: int) -> list[float]:
        """The noise levels of a run: `steps + 1` values from the start to the end.

        Raises RequestError when the spacing cannot take so many steps.
        """
        laid = steps + 1 if self.discard_penultimate and steps > 0 else steps
        levels = SPACINGS[self.spacing](schedule, laid, self._grid(schedule, laid))
        return [*levels[:-2], levels[-1]] if laid > steps else levels

    def _grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        grid = Grid(
            end=schedule.sigmas[0] if self.end == "first" else 0.0,
            offset=self.offset,
            drop_lowest=self.drop_lowest,
            whole_timesteps=self.whole_timesteps,
            original_steps=self.original_steps,
        )
        if self.bounds is None or self.spacing not in LAID_IN_SIGMA:
            return grid
        bounds = SPACINGS[self.bounds](schedule, steps, grid)
        return replace(grid, highest=bounds[0], lowest=bounds[-2])

    def initial_scale(self, sigmas: list[float]) -> float:
        """What unit start noise is multiplied by to become the first latent of a run from pure noise."""
        return math.sqrt(1.0 + sigmas[0] ** 2) if self.enter == "unit_variance" else sigmas[0]

    def leave(self, x: Tensor, end: float) -> Tensor:
        """The latent that a run hands over: its last x, scaled back to the variance of a clean latent at level `end`.

        A run that ends above 0 (DDIM and PNDM of Stable Diffusion: 0.02917) keeps that much noise.
        """
        return x if self.leaves == "as_is" else x / math.sqrt(1.0 + end**2)

    def guidance_scale(self, guidance: float, sigmas: list[float]) -> Scale | None:
        """The scale of guidance at each level where it depends on the level, as in CFG++; else None."""
        if self.plus_plus is None:
            return None
        if self.sampler in TAKES_UNCONDITIONAL:  # which do the rest themselves
            return constant(guidance * self.plus_plus)
        eta = float(dict(self.options).get("eta", 1.0 if self.sampler == "euler_ancestral" else 0.0))  # type: ignore[arg-type]
        return plus_plus(guidance * self.plus_plus, sigmas, lambda level, lower: ancestral(level, lower, eta)[0])

    def lookup(self, schedule: NoiseSchedule, sigmas: list[float]) -> Lookup:
        """The timestep of any noise level in a run over these levels, for `denoiser`."""
        if self.rule in ("log", "nearest"):
            return partial(schedule.timestep, rule=self.rule)
        knots = sorted((sigma, schedule.timestep(sigma, self.rule)) for sigma in sigmas)

        def find(sigma: float) -> float:
            place = bisect_left(knots, (sigma,))
            for knot, timestep in knots[max(place - 1, 0) : place + 1]:
                if math.isclose(knot, sigma, rel_tol=1e-9):  # levels that only rounding tells apart
                    return timestep
            return schedule.timestep(sigma)

        return find

    def run(
        self,
        denoise: Denoise,
        x: Tensor,
        sigmas: list[float],
        noise: Noise,
        *,
        schedule: NoiseSchedule,
        unconditional: Denoise | None = None,
    ) -> Iterator[Step]:
        """The trajectory: this sampler with its options over the levels. One Step for each interval.

        `unconditional` is the negative prompt's denoiser, for the samplers of CFG++ that ask it too.
        """
        options: dict[str, object] = dict(self.options)
        if self.sampler in TAKES_SCHEDULE:
            options["schedule"] = schedule
        if self.sampler in TAKES_UNCONDITIONAL:
            options["unconditional"] = unconditional
        return SAMPLERS[self.sampler](denoise, x, sigmas, noise, **options)


def _known(field: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise RequestError(f"{field} {name!r} is not known; known are {', '.join(sorted(known))}.", field=field)
