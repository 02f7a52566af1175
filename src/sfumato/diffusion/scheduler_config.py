"""A diffusers `scheduler_config.json` as a Sampling: every option is honoured, or refused by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sfumato.diffusion.denoiser import PREDICTIONS, Prediction
from sfumato.diffusion.sampling import End, Option, Sampling
from sfumato.diffusion.schedule import TimestepRule
from sfumato.errors import ConfigError

Config = Mapping[str, object]


def from_scheduler_config(config: Config) -> Sampling:
    """The sampling that a diffusers scheduler config describes, with its class's own defaults.

    Its noise schedule is `schedule.from_scheduler_config`.
    Raises ConfigError for a class or an option that sfumato cannot honour, naming it and its value.
    """
    name = config.get("_class_name")
    if name not in SCHEDULER_CLASSES:
        raise ConfigError(f"Scheduler class {name!r} is not known; known are {', '.join(SCHEDULER_CLASSES)}.")
    for key, (accepted, reason) in REFUSED.items():
        if key in config and config[key] not in accepted:
            raise ConfigError(f"{name} with {key}={config[key]!r} is not supported: {reason}.")
    return replace(SCHEDULER_CLASSES[str(name)](config), prediction=_prediction(config))


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "thresholding": ((False, None), "dynamic thresholding belongs to models of pixels, not of latents"),
    "use_flow_sigmas": ((False, None), "flow matching is not a noise schedule of Stable Diffusion"),
    "use_dynamic_shifting": ((False, None), "flow matching is not a noise schedule of Stable Diffusion"),
    "shift_terminal": ((None,), "flow matching is not a noise schedule of Stable Diffusion"),
    "use_lu_lambdas": ((False, None), "this spacing is not one of sfumato's"),
    "variance_type": ((None, "fixed_small", "fixed_small_log"), "only the fixed small variance is"),
    "lambda_min_clipped": ((None, float("-inf"), "-inf"), "the whole schedule is used"),
    "interpolation_type": (("linear", None), "levels between timesteps are interpolated linearly"),
    "timestep_type": (("discrete", None), "continuous timesteps are not"),
    "predict_x0": ((True, None), "UniPC predicts the clean latent here"),
    "solver_p": ((None,), "UniPC brings its own predictor"),
    "sigma_min": ((None,), "the ends of the schedule are used"),
    "sigma_max": ((None,), "the ends of the schedule are used"),
}
"""Options with the values that are accepted, and why no other is."""


@dataclass(frozen=True)
class Spaced:
    """What a config says about its levels, once read."""

    spacing: str
    offset: int
    special: bool  # Karras, exponential or beta sigmas
    plain: str


def _spaced(config: Config, default: str) -> Spaced:
    plain = str(config.get("timestep_spacing", default))
    if plain not in ("leading", "trailing", "linspace"):
        raise ConfigError(f"timestep_spacing {plain!r} is not one of leading, trailing, linspace.")
    chosen = [name for key, name in SIGMA_FLAGS.items() if config.get(key)]
    if len(chosen) > 1:
        raise ConfigError(f"Only one of {', '.join(SIGMA_FLAGS)} can be set.")
    return Spaced(chosen[0] if chosen else plain, _integer(config, "steps_offset", 0), bool(chosen), plain)


SIGMA_FLAGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta_sigmas",
}


def _ddim_family(
    sampler: str, *, eta: float = 0.0, clips: bool = True, to_one: bool = True
) -> Callable[[Config], Sampling]:
    """DDIM, DDPM and PNDM: integer timesteps, a variance-preserving start, an end that set_alpha_to_one decides.

    `clips` and `to_one` are the class's defaults of clip_sample and set_alpha_to_one.
    """

    def read(config: Config) -> Sampling:
        _refuse_clipping(config, clips)
        if sampler == "plms" and not config.get("skip_prk_steps", False):
            raise ConfigError(
                "PNDMScheduler with skip_prk_steps=False is not supported: the Runge-Kutta start is not one of "
                "sfumato's; Stable Diffusion's configs set it to true."
            )
        spaced = _spaced(config, "leading")
        ends_at_zero = bool(config.get("set_alpha_to_one", to_one))
        return Sampling(
            sampler=sampler,
            spacing=spaced.spacing,
            options=(("eta", eta),) if eta else (),
            offset=spaced.offset,
            end="zero" if ends_at_zero else "first",
        )

    return read


def _euler_family(
    sampler: str, *, rounds_karras: bool = False, beta_sigmas: bool = True
) -> Callable[[Config], Sampling]:
    """Euler, Heun, LMS, DPM2 and DPM-Solver-SDE: fractional timesteps, and sigmas within the plain spacing's."""

    def read(config: Config) -> Sampling:
        _refuse_clipping(config, False)
        spaced = _spaced(config, "linspace")
        rule: TimestepRule = "linear"
        if spaced.special:
            rule = "round" if rounds_karras and spaced.spacing == "karras" else "log"
        return Sampling(
            sampler=sampler,
            spacing=spaced.spacing,
            rule=rule,
            enter="unit_variance" if spaced.plain == "leading" else "highest",
            end=_end(config),
            offset=spaced.offset,
            whole_timesteps=False,
            bounds=spaced.plain if spaced.special else None,
        )

    return read


def _solver_rule(config: Config, spaced: Spaced) -> TimestepRule:
    """diffusers' solvers hand integers to the network: rounded for Karras sigmas, cut off for the others."""
    if spaced.spacing == "karras":
        cosine = config.get("beta_schedule") == "squaredcos_cap_v2"
        return "truncate" if cosine and config["_class_name"] == "DPMSolverMultistepScheduler" else "round"
    return "truncate" if spaced.special else "log"


def _solver(config: Config, sampler: str, options: dict[str, Option], end: End) -> Sampling:
    spaced = _spaced(config, "linspace")
    return Sampling(
        sampler=sampler,
        spacing=spaced.spacing,
        options=tuple(options.items()),
        rule=_solver_rule(config, spaced),
        end=end,
        offset=spaced.offset,
        drop_lowest=True,
    )


def _dpm_multistep(config: Config) -> Sampling:
    algorithm = str(config.get("algorithm_type", "dpmsolver++"))
    options: dict[str, Option] = {
        "order": _order(config),
        "solver": _one_of(
            config,
            "solver_type",
            {"midpoint": "midpoint", "heun": "heun"} | dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
            "midpoint",
        ),
        "lower_order_final": bool(config.get("lower_order_final", True)),
        "euler_at_final": bool(config.get("euler_at_final", False)),
    }
    if algorithm in ("dpmsolver++", "deis"):
        return _solver(config, "dpmpp_multistep", options, _end(config))
    if algorithm == "sde-dpmsolver++":
        return _solver(config, "dpmpp_multistep", options | {"eta": 1.0}, _end(config))
    raise ConfigError(f"algorithm_type {algorithm!r} is not supported: dpmsolver++ and sde-dpmsolver++ are.")


def _unipc(config: Config) -> Sampling:
    disabled = config.get("disable_corrector") or []
    if not isinstance(disabled, list | tuple):
        raise ConfigError(f"disable_corrector must be a list of steps, not {disabled!r}.")
    options: dict[str, Option] = {
        "order": _order(config),
        "variant": _one_of(
            config,
            "solver_type",
            {"bh1": "bh1", "bh2": "bh2"} | dict.fromkeys(("midpoint", "heun", "logrho"), "bh2"),
            "bh2",
        ),
        "lower_order_final": bool(config.get("lower_order_final", True)),
        "uncorrected": tuple(int(step) for step in disabled),
    }
    return _solver(config, "unipc", options, _end(config))


def _deis(config: Config) -> Sampling:
    options: dict[str, Option] = {
        "order": _order(config),
        "lower_order_final": bool(config.get("lower_order_final", True)),
    }
    return _solver(config, "deis", options, "first")


def _distilled(sampler: str) -> Callable[[Config], Sampling]:
    def read(config: Config) -> Sampling:
        _refuse_clipping(config, False)
        options: tuple[tuple[str, Option], ...] = ()
        if sampler == "lcm":
            options = (("timestep_scaling", float(_integer(config, "timestep_scaling", 10))),)
        return Sampling(
            sampler=sampler,
            spacing="distilled",
            options=options,
            original_steps=_integer(config, "original_inference_steps", 50),
            end="zero" if sampler == "lcm" else "first",
        )

    return read


SCHEDULER_CLASSES: dict[str, Callable[[Config], Sampling]] = {
    "DDIMScheduler": _ddim_family("euler"),
    "DDPMScheduler": _ddim_family("euler", eta=1.0),
    "PNDMScheduler": _ddim_family("plms", clips=False, to_one=False),
    "EulerDiscreteScheduler": _euler_family("euler"),
    "EulerAncestralDiscreteScheduler": _euler_family("euler_ancestral"),
    "HeunDiscreteScheduler": _euler_family("heun"),
    "LMSDiscreteScheduler": _euler_family("lms"),
    "KDPM2DiscreteScheduler": _euler_family("dpm2", rounds_karras=True),
    "KDPM2AncestralDiscreteScheduler": _euler_family("dpm2_ancestral", rounds_karras=True),
    "DPMSolverSDEScheduler": _euler_family("dpmpp_sde"),
    "DPMSolverMultistepScheduler": _dpm_multistep,
    "UniPCMultistepScheduler": _unipc,
    "DEISMultistepScheduler": _deis,
    "LCMScheduler": _distilled("lcm"),
    "TCDScheduler": _distilled("tcd"),
}


def _prediction(config: Config) -> Prediction:
    found = config.get("prediction_type", "epsilon")
    for prediction in PREDICTIONS:
        if found == prediction:
            return prediction
    raise ConfigError(f"prediction_type {found!r} is not one of {', '.join(PREDICTIONS)}.")


def _end(config: Config) -> End:
    found = config.get("final_sigmas_type", "zero")
    if found not in ("zero", "sigma_min"):
        raise ConfigError(f"final_sigmas_type {found!r} is not one of zero, sigma_min.")
    return "first" if found == "sigma_min" else "zero"


def _refuse_clipping(config: Config, default: bool) -> None:
    if config.get("clip_sample", default):
        raise ConfigError(
            f"{config['_class_name']} with clip_sample=True is not supported: latents are not confined to [-1, 1]; "
            "Stable Diffusion's configs set it to false."
        )


def _order(config: Config) -> int:
    order = _integer(config, "solver_order", 2)
    if order not in (1, 2, 3):
        raise ConfigError(f"solver_order {order} is not one of 1, 2, 3.")
    return order


def _integer(config: Config, key: str, default: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} must be a number, not {value!r}.")
    return int(value)


def _one_of(config: Config, key: str, values: dict[str, str], default: str) -> str:
    found = str(config.get(key, default))
    if found not in values:
        raise ConfigError(f"{key} {found!r} is not one of {', '.join(values)}.")
    return values[found]
