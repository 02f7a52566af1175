"""A diffusers `scheduler_config.json` as a Sampling: every option is honoured, or refused by name.

Each class reads its own options; what it does not read (left over from another class) is ignored, as in diffusers.
The noise schedule of a config is `schedule.from_scheduler_config`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from sfumato.diffusion.denoiser import PREDICTIONS, Prediction
from sfumato.diffusion.sampling import End, Option, Sampling
from sfumato.diffusion.schedule import TimestepRule
from sfumato.errors import ConfigError

Config = Mapping[str, object]


def from_scheduler_config(config: Config) -> Sampling:
    """The sampling that a diffusers scheduler config describes, with its class's own defaults.

    Raises ConfigError for a class or an option that sfumato cannot honour, naming it and its value.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in SCHEDULER_CLASSES:
        raise ConfigError(f"Scheduler class {name!r} is not known; known are {', '.join(SCHEDULER_CLASSES)}.")
    for key, (accepted, reason) in REFUSED.items():
        if key in config and config[key] not in accepted:
            raise ConfigError(f"{name} with {key}={config[key]!r} is not supported: {reason}.")
    found = config.get("prediction_type", "epsilon")
    if found not in PREDICTIONS:
        raise ConfigError(f"prediction_type {found!r} is not one of {', '.join(PREDICTIONS)}.")
    prediction: Prediction = next(known for known in PREDICTIONS if known == found)
    return replace(SCHEDULER_CLASSES[name](config), prediction=prediction)


FLOW = "flow matching is not a noise schedule of Stable Diffusion"
NO_LIMITS = "the ends of the schedule are used"

REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "thresholding": ((False, None), "dynamic thresholding belongs to models of pixels, not of latents"),
    "use_flow_sigmas": ((False, None), FLOW),
    "use_dynamic_shifting": ((False, None), FLOW),
    "shift_terminal": ((None,), FLOW),
    "use_lu_lambdas": ((False, None), "sfumato does not have this spacing"),
    "variance_type": ((None, "fixed_small", "fixed_small_log"), "sfumato has only the fixed small variance"),
    "lambda_min_clipped": ((None, -float("inf"), "-inf"), "the whole schedule is used"),
    "interpolation_type": ((None, "linear"), "levels between timesteps are interpolated linearly"),
    "timestep_type": ((None, "discrete"), "timesteps are those of the schedule"),
    "predict_x0": ((None, True), "UniPC here works on clean latents"),
    "solver_p": ((None,), "UniPC here brings its own predictor"),
    "sigma_min": ((None,), NO_LIMITS),
    "sigma_max": ((None,), NO_LIMITS),
    "noise_sampler_seed": ((None,), "noise comes from the request's seed"),
}
"""Options with the values that are accepted, and why no other is."""

SIGMA_FLAGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta_sigmas",
}


def _ddim_family(sampler: str, *, end: End | None = None) -> Callable[[Config], Sampling]:
    """DDIM and DDPM: integer timesteps, a variance-preserving start; `end` None: set_alpha_to_one decides."""

    def read(config: Config) -> Sampling:
        _refuse_clipping(config, default=True)
        one = _flag(config, "set_alpha_to_one", True)
        return Sampling(
            sampler=sampler,
            spacing=_plain_spacing(config, "leading"),
            offset=_integer(config, "steps_offset", 0),
            end=end or ("zero" if one else "first"),
        )

    return read


def _pndm(config: Config) -> Sampling:
    if not _flag(config, "skip_prk_steps", False):
        raise ConfigError(
            "PNDMScheduler with skip_prk_steps=False is not supported: sfumato does not have the Runge-Kutta start; "
            "Stable Diffusion's configs set it to true."
        )
    velocity = config.get("prediction_type") == "v_prediction"
    return Sampling(
        sampler="plms",
        options=(("averaged", "v_prediction"),) if velocity else (),
        spacing=_plain_spacing(config, "leading"),
        offset=_integer(config, "steps_offset", 0),
        end="zero" if _flag(config, "set_alpha_to_one", False) else "first",
    )


def _euler_family(
    sampler: str, *, flags: bool = True, ends: bool = False, rounds_karras: bool = False
) -> Callable[[Config], Sampling]:
    """Euler, Heun, LMS, DPM2 and DPM-Solver-SDE: fractional timesteps, and sigmas within the plain spacing's.

    flags: reads use_karras_sigmas and its siblings; ends: reads final_sigmas_type. The middle of an ancestral DPM2
    step is its next level: with Karras sigmas diffusers gives the network a rounded timestep at one and the exact
    one at the other, at most 0.5 apart; here both are rounded.
    """

    def read(config: Config) -> Sampling:
        if sampler == "heun":
            _refuse_clipping(config, default=False)
        plain = _plain_spacing(config, "linspace")
        spacing = _spacing(config, plain) if flags else plain
        rule: TimestepRule = "linear"
        if spacing != plain:
            rule = "round" if rounds_karras and spacing == "karras" else "log"
        return Sampling(
            sampler=sampler,
            spacing=spacing,
            rule=rule,
            enter="unit_variance" if plain == "leading" else "highest",
            end=_end(config) if ends else "zero",
            leaves="as_is",
            offset=_integer(config, "steps_offset", 0),
            whole_timesteps=False,
            bounds=plain if spacing != plain else None,
        )

    return read


def _solver(config: Config, sampler: str, options: dict[str, Option], end: End) -> Sampling:
    """DPM-Solver, UniPC and DEIS: integer timesteps, one level more than steps of which the lowest is dropped."""
    name = config["_class_name"]
    plain = "linspace" if name == "DPMSolverSinglestepScheduler" else _plain_spacing(config, "linspace")
    spacing = _spacing(config, plain)
    rule: TimestepRule = "log"
    if spacing == "karras":
        cosine = config.get("beta_schedule") == "squaredcos_cap_v2"
        rule = "truncate" if cosine and name == "DPMSolverMultistepScheduler" else "round"
    elif spacing != plain:
        rule = "truncate"
    return Sampling(
        sampler=sampler,
        spacing=spacing,
        options=tuple(options.items()),
        rule=rule,
        end=end,
        offset=0 if name == "DPMSolverSinglestepScheduler" else _integer(config, "steps_offset", 0),
        drop_lowest=True,
    )


def _dpm_multistep(config: Config) -> Sampling:
    algorithm = _choice(config, "algorithm_type", MULTISTEP_ALGORITHMS, "dpmsolver++")
    options: dict[str, Option] = {
        "order": _order(config),
        "solver": _choice(config, "solver_type", DPM_SOLVERS, "midpoint"),
        "lower_order_final": _flag(config, "lower_order_final", True),
        "euler_at_final": _flag(config, "euler_at_final", False),
    }
    if algorithm in ("dpmsolver", "sde-dpmsolver") and _end(config) == "zero":
        raise ConfigError(
            f"algorithm_type {algorithm!r} needs final_sigmas_type 'sigma_min'; dpmsolver++ can take zero."
        )
    if algorithm == "sde-dpmsolver" and options["order"] == 3:
        raise ConfigError("solver_order 3 is not supported for algorithm_type 'sde-dpmsolver'; 1 and 2 are.")
    if algorithm in ("dpmsolver", "sde-dpmsolver"):
        stochastic: Option = algorithm == "sde-dpmsolver"
        return _solver(config, "dpm_multistep", options | {"stochastic": stochastic}, _end(config))
    eta = 1.0 if algorithm == "sde-dpmsolver++" else 0.0
    return _solver(config, "dpmpp_multistep", options | {"eta": eta}, _end(config))


def _dpm_singlestep(config: Config) -> Sampling:
    algorithm = _choice(config, "algorithm_type", SINGLESTEP_ALGORITHMS, "dpmsolver++")
    options: dict[str, Option] = {
        "order": _order(config),
        "eta": 1.0 if algorithm == "sde-dpmsolver++" else 0.0,
        "solver": _choice(config, "solver_type", DPM_SOLVERS, "midpoint"),
        "lower_order_final": _flag(config, "lower_order_final", False),
    }
    return _solver(config, "dpmpp_singlestep", options, _end(config))


def _unipc(config: Config) -> Sampling:
    disabled = config.get("disable_corrector") or []
    if not isinstance(disabled, list | tuple) or not all(isinstance(step, int) for step in disabled):
        raise ConfigError(f"disable_corrector must be a list of steps, not {disabled!r}.")
    options: dict[str, Option] = {
        "order": _order(config),
        "variant": _choice(config, "solver_type", UNIPC_VARIANTS, "bh2"),
        "lower_order_final": _flag(config, "lower_order_final", True),
        "uncorrected": tuple(disabled),
    }
    return _solver(config, "unipc", options, _end(config))


def _deis(config: Config) -> Sampling:
    _choice(config, "algorithm_type", DEIS_ALGORITHMS, "deis")
    _choice(config, "solver_type", dict.fromkeys(SOLVER_TYPES, "logrho"), "logrho")
    options: dict[str, Option] = {
        "order": _order(config),
        "lower_order_final": _flag(config, "lower_order_final", True),
    }
    return _solver(config, "deis", options, "first")


def _distilled(sampler: str, end: End) -> Callable[[Config], Sampling]:
    """LCM and TCD: timesteps from the grid of the distillation."""

    def read(config: Config) -> Sampling:
        _refuse_clipping(config, default=False)
        scaling = _number(config, "timestep_scaling", 10.0)
        return Sampling(
            sampler=sampler,
            spacing="distilled",
            options=(("timestep_scaling", scaling),) if sampler == "lcm" else (),
            original_steps=_integer(config, "original_inference_steps", 50),
            end=end,
        )

    return read


SOLVER_TYPES = ("midpoint", "heun", "logrho", "bh1", "bh2")
DPM_SOLVERS = {"midpoint": "midpoint", "heun": "heun", "logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"}
UNIPC_VARIANTS = {"bh1": "bh1", "bh2": "bh2", "midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}
MULTISTEP_ALGORITHMS = {
    "dpmsolver++": "dpmsolver++",
    "sde-dpmsolver++": "sde-dpmsolver++",
    "dpmsolver": "dpmsolver",
    "sde-dpmsolver": "sde-dpmsolver",
    "deis": "dpmsolver++",
}
SINGLESTEP_ALGORITHMS = {"dpmsolver++": "dpmsolver++", "sde-dpmsolver++": "sde-dpmsolver++", "deis": "dpmsolver++"}
DEIS_ALGORITHMS = {"deis": "deis", "dpmsolver": "deis", "dpmsolver++": "deis"}
"""What each class makes of a value, its own or one left over from a sibling: diffusers' own substitutions."""

SCHEDULER_CLASSES: dict[str, Callable[[Config], Sampling]] = {
    "DDIMScheduler": _ddim_family("euler"),
    "DDPMScheduler": _ddim_family("euler_ancestral", end="zero"),
    "PNDMScheduler": _pndm,
    "EulerDiscreteScheduler": _euler_family("euler", ends=True),
    "EulerAncestralDiscreteScheduler": _euler_family("euler_ancestral", flags=False),
    "HeunDiscreteScheduler": _euler_family("heun"),
    "LMSDiscreteScheduler": _euler_family("lms"),
    "KDPM2DiscreteScheduler": _euler_family("dpm2", rounds_karras=True),
    "KDPM2AncestralDiscreteScheduler": _euler_family("dpm2_ancestral", rounds_karras=True),
    "DPMSolverSDEScheduler": _euler_family("dpmpp_sde"),
    "DPMSolverMultistepScheduler": _dpm_multistep,
    "DPMSolverSinglestepScheduler": _dpm_singlestep,
    "UniPCMultistepScheduler": _unipc,
    "DEISMultistepScheduler": _deis,
    "LCMScheduler": _distilled("lcm", "zero"),
    "TCDScheduler": _distilled("tcd", "first"),
}


def _plain_spacing(config: Config, default: str) -> str:
    return _choice(config, "timestep_spacing", {name: name for name in ("leading", "trailing", "linspace")}, default)


def _spacing(config: Config, plain: str) -> str:
    """The plain spacing, or the one laid in sigma that a flag asks for."""
    chosen = [spacing for key, spacing in SIGMA_FLAGS.items() if _flag(config, key, False)]
    if len(chosen) > 1:
        raise ConfigError(f"At most one of {', '.join(SIGMA_FLAGS)} can be set.")
    return chosen[0] if chosen else plain


def _end(config: Config) -> End:
    choice = _choice(config, "final_sigmas_type", {"zero": "zero", "sigma_min": "first"}, "zero")
    return "first" if choice == "first" else "zero"


def _refuse_clipping(config: Config, *, default: bool) -> None:
    if _flag(config, "clip_sample", default):
        raise ConfigError(
            f"{config['_class_name']} with clip_sample=True is not supported: latents are not confined to [-1, 1]; "
            "Stable Diffusion's configs set it to false."
        )


def _order(config: Config) -> int:
    order = _integer(config, "solver_order", 2)
    if order not in (1, 2, 3):
        raise ConfigError(f"solver_order {order} is not one of 1, 2, 3.")
    return order


def _flag(config: Config, key: str, default: bool) -> bool:
    value = config.get(key, default)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, not {value!r}.")
    return bool(value)


def _number(config: Config, key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} must be a number, not {value!r}.")
    return float(value)


def _integer(config: Config, key: str, default: int) -> int:
    value = _number(config, key, default)
    if value != int(value):
        raise ConfigError(f"{key} must be a whole number, not {value!r}.")
    return int(value)


def _choice(config: Config, key: str, values: Mapping[str, str], default: str) -> str:
    found = config.get(key, default)
    if not isinstance(found, str) or found not in values:
        raise ConfigError(f"{key} {found!r} is not one of {', '.join(values)}.")
    return values[found]
