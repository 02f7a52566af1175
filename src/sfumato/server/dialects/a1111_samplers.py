"""AUTOMATIC1111's samplers and schedule types: as its lists tell them, and how what clients send is read.

Names, aliases and options are those of stable-diffusion-webui 1.10. A request takes the labels as they are; what
they stand for is said in `sfumato.diffusion.presets`.
"""

from dataclasses import dataclass, field
from typing import Any

from sfumato.server.problems import Problem


@dataclass(frozen=True)
class Sampler:
    """One of A1111's samplers.

    `timesteps`: it lays its own, whatever the schedule type. `eta`, `churn`, `noise`: it takes eta, s_churn, s_noise.
    """

    name: str
    aliases: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    timesteps: bool = False
    eta: bool = False
    churn: bool = False
    noise: bool = False

    def listed(self) -> dict[str, Any]:
        """As `/sdapi/v1/samplers` has it."""
        return {"name": self.name, "aliases": list(self.aliases), "options": dict(self.options)}


_KARRAS, _EXPONENTIAL = {"scheduler": "karras"}, {"scheduler": "exponential"}
_ENSD, _SECOND, _BROWNIAN = {"uses_ensd": "True"}, {"second_order": "True"}, {"brownian_noise": "True"}
_DISCARD = {"discard_next_to_last_sigma": "True"}

SAMPLERS: tuple[Sampler, ...] = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m",), _KARRAS),
    Sampler("DPM++ SDE", ("k_dpmpp_sde",), _KARRAS | _SECOND | _BROWNIAN, eta=True, noise=True),
    Sampler("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), _EXPONENTIAL | _BROWNIAN, eta=True, noise=True),
    Sampler(
        "DPM++ 2M SDE Heun",
        ("k_dpmpp_2m_sde_heun",),
        _EXPONENTIAL | _BROWNIAN | {"solver_type": "heun"},
        eta=True,
        noise=True,
    ),
    Sampler("DPM++ 2S a", ("k_dpmpp_2s_a",), _KARRAS | _ENSD | _SECOND, eta=True, noise=True),
    Sampler("DPM++ 3M SDE", ("k_dpmpp_3m_sde",), _EXPONENTIAL | _DISCARD | _BROWNIAN, eta=True, noise=True),
    Sampler("Euler a", ("k_euler_a", "k_euler_ancestral"), _ENSD, eta=True, noise=True),
    Sampler("Euler", ("k_euler",), churn=True),
    Sampler("LMS", ("k_lms",)),
    Sampler("Heun", ("k_heun",), _SECOND, churn=True),
    Sampler("DPM2", ("k_dpm_2",), _KARRAS | _DISCARD | _SECOND, churn=True),
    Sampler("DPM2 a", ("k_dpm_2_a",), _KARRAS | _DISCARD | _ENSD | _SECOND, eta=True, noise=True),
    Sampler("DDIM", ("ddim",), timesteps=True, eta=True),
    Sampler("DDIM CFG++", ("ddim_cfgpp",), timesteps=True, eta=True),
    Sampler("PLMS", ("plms",), timesteps=True),
    Sampler("UniPC", ("unipc",), timesteps=True),
    Sampler("LCM", ("k_lcm",)),
    # not A1111's
    Sampler("DDPM", ("ddpm",), timesteps=True, eta=True),
    Sampler("DEIS", ("deis",), timesteps=True),
    Sampler("TCD", ("tcd",), timesteps=True, eta=True),
)


@dataclass(frozen=True)
class Scheduler:
    """One of A1111's schedule types. `spacing` is ours, None the sampler's own; `suffix` is that of old aliases."""

    name: str
    label: str
    spacing: str | None
    aliases: tuple[str, ...] = ()
    default_rho: float | None = None
    need_inner_model: bool = False
    suffix: str | None = None

    @property
    def endings(self) -> tuple[str, ...]:
        """How a sampler's older name may end that brings this schedule type along, in lower case."""
        spoken = [f" {each.lower()}" for each in (self.label, self.name, *self.aliases)]
        return (*spoken, self.suffix) if self.suffix else tuple(spoken)

    def listed(self) -> dict[str, Any]:
        """As `/sdapi/v1/schedulers` has it."""
        return {
            "name": self.name,
            "label": self.label,
            "aliases": list(self.aliases) or None,
            "default_rho": -1 if self.default_rho is None else self.default_rho,
            "need_inner_model": self.need_inner_model,
        }


SCHEDULERS: tuple[Scheduler, ...] = (
    Scheduler("automatic", "Automatic", None),
    Scheduler("uniform", "Uniform", "normal", need_inner_model=True),
    Scheduler("karras", "Karras", "karras", default_rho=7.0, suffix="_ka"),
    Scheduler("exponential", "Exponential", "exponential", suffix="_exp"),
    Scheduler("polyexponential", "Polyexponential", "polyexponential", default_rho=1.0),
    Scheduler("sgm_uniform", "SGM Uniform", "sgm_uniform", ("SGMUniform",), need_inner_model=True),
    Scheduler("kl_optimal", "KL Optimal", "kl_optimal"),
    Scheduler("align_your_steps", "Align Your Steps", "align_your_steps"),
    Scheduler("simple", "Simple", "simple", need_inner_model=True),
    Scheduler("normal", "Normal", "normal", need_inner_model=True),
    Scheduler("ddim", "DDIM", "ddim_uniform", need_inner_model=True),
    Scheduler("beta", "Beta", "beta_sigmas", need_inner_model=True),
)

_LACKING = ("DPM fast", "DPM adaptive", "Restart")  # of A1111's


def find_sampler(name: str) -> Sampler | None:
    """The sampler of a name or an alias, in any case."""
    wanted = name.strip().lower()
    return next((each for each in SAMPLERS if wanted in (each.name.lower(), *each.aliases)), None)


def find_scheduler(name: str) -> Scheduler | None:
    """The schedule type of a name, a label or an alias, in any case."""
    wanted = name.strip().lower()
    return next(
        (each for each in SCHEDULERS if wanted in (each.name, each.label.lower(), *map(str.lower, each.aliases))), None
    )


def read_sampler(sampler_name: str, scheduler_name: str) -> tuple[Sampler, Scheduler]:
    """What A1111 1.10 makes of both names: one that ends with a schedule type ("DPM++ 2M Karras") brings it along.

    Raises Problem 404 for a sampler that is not there, as A1111 does, and 422 for such a schedule type.
    """
    scheduler = find_scheduler(scheduler_name or "automatic")
    if scheduler is None:
        known = ", ".join(each.name for each in SCHEDULERS)
        raise Problem(
            422, "request.scheduler", f"scheduler is {scheduler_name!r}; known are {known}", field="scheduler"
        )
    found = find_sampler(sampler_name)
    if found is None:
        for each in SCHEDULERS[1:]:
            for ending in each.endings:
                shorter = sampler_name.strip().lower().removesuffix(ending)
                if shorter != sampler_name.strip().lower() and (there := find_sampler(shorter)):
                    return there, each
    if found is None:
        why = f"{sampler_name} is one of A1111's that sfumato has not" if sampler_name in _LACKING else sampler_name
        raise Problem(
            404, "request.sampler", f"Sampler not found: {why}; GET /sdapi/v1/samplers lists them", field="sampler_name"
        )
    return found, scheduler


def spacing_of(sampler: Sampler, scheduler: Scheduler, *, sdxl: bool = False) -> str | None:
    """The spacing of a request for this sampler and schedule type; None is the sampler's own."""
    if sampler.timesteps or scheduler.spacing is None:
        return None
    return f"{scheduler.spacing}_sdxl" if sdxl and scheduler.name == "align_your_steps" else scheduler.spacing
