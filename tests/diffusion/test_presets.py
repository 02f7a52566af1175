"""Names that users know, and scheduler configs as models ship them."""

import inspect
import json
import math
from dataclasses import replace
from typing import Any

import diffusers
import pytest

from sfumato.diffusion.presets import (
    A1111,
    A1111_SPACINGS,
    ALIASES,
    COMFYUI,
    COMFYUI_SPACINGS,
    PRESETS,
    Sampling,
    a1111,
    comfyui,
    from_scheduler_config,
    preset,
    spacing_name,
    with_overrides,
)
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.schedule import scaled_linear
from sfumato.diffusion.scheduler_config import SCHEDULER_CLASSES
from sfumato.diffusion.spacing import SPACINGS
from sfumato.errors import ConfigError, RequestError

SD = scaled_linear()


def test_every_name_of_the_plan_is_a_preset() -> None:
    names = (
        "ddim pndm plms euler euler_a heun dpm2 dpm2_a lms dpmpp_2s_a dpmpp_2m dpmpp_2m_karras dpmpp_sde dpmpp_2m_sde "
        "dpmpp_3m_sde deis unipc lcm tcd ddpm"
    )
    assert set(names.split()) <= set(PRESETS)


def test_every_sampler_has_a_name() -> None:
    named = {sampling.sampler for sampling in PRESETS.values()}
    by_config = {"dpmpp_multistep", "dpmpp_singlestep", "dpm_multistep"}
    assert named | by_config == set(SAMPLERS)


def test_aliases_lead_to_presets() -> None:
    assert set(ALIASES.values()) <= set(PRESETS)
    assert not set(ALIASES) & set(PRESETS)
    for alias, name in ALIASES.items():
        assert preset(alias) == PRESETS[name]


@pytest.mark.parametrize(
    ("label", "sampler", "spacing"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("DPM++ 2M", "dpmpp_2m", "karras"),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras"),
        ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde_heun", "exponential"),
        ("DPM++ 3M SDE Karras", "dpmpp_3m_sde", "karras"),
        ("DPM2 a Karras", "dpm2_ancestral", "karras"),
        ("LMS Karras", "lms", "karras"),
        ("Euler a", "euler_ancestral", "normal"),
        ("Euler SGM Uniform", "euler", "sgm_uniform"),
        ("DDIM", "euler", "leading"),
        ("PLMS", "plms", "leading"),
        ("k_euler_a", "euler_ancestral", "normal"),
        ("Euler_A", "euler_ancestral", "normal"),
        ("uni_pc", "unipc", "linspace"),
        ("DPMSolverMultistepScheduler", "dpmpp_multistep", "linspace"),
        ("PNDMScheduler", "plms", "leading"),
    ],
)
def test_labels_mean_what_users_expect(label: str, sampler: str, spacing: str) -> None:
    found = preset(label)
    assert (found.sampler, found.spacing) == (sampler, spacing)


def test_an_unknown_name_is_an_error_that_lists_what_is_known() -> None:
    with pytest.raises(RequestError, match=r"'DPM adaptive'.*dpmpp_2m_karras") as caught:
        preset("DPM adaptive")
    assert caught.value.field == "sampler"
    with pytest.raises(RequestError, match="'linear_quadratic'") as caught:
        spacing_name("linear_quadratic")
    assert caught.value.field == "spacing"
    with pytest.raises(RequestError, match="nowhere"):
        Sampling(sampler="euler", spacing="nowhere")


def test_a1111s_automatic_is_the_table_of_its_version_1_10() -> None:
    karras = {"DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a"}
    exponential = {"DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"}
    for label in A1111:
        if label in karras:
            assert a1111(label).spacing == "karras"
        elif label in exponential:
            assert a1111(label).spacing == "exponential"
    assert a1111("Euler", "Karras").spacing == "karras"
    assert a1111("Euler", "sgm_uniform").spacing == "sgm_uniform"
    assert a1111("DPM++ 2M", "uniform").spacing == "normal"


def test_a1111_and_comfyui_enter_their_own_ways() -> None:
    levels = PRESETS["euler"].sigmas(SD, 20)
    assert a1111("Euler").initial_scale(levels) == levels[0]
    assert comfyui("euler", "normal").initial_scale(levels) == math.sqrt(1 + levels[0] ** 2)


def test_comfyui_discards_the_penultimate_level_for_four_samplers() -> None:
    assert {name for name in COMFYUI if COMFYUI[name].discard_penultimate} == {
        "dpm_2",
        "dpm_2_ancestral",
        "uni_pc",
        "uni_pc_bh2",
    }
    sampling = comfyui("dpm_2", "karras")
    plain = replace(sampling, discard_penultimate=False).sigmas(SD, 11)
    assert sampling.sigmas(SD, 10) == [*plain[:-2], 0.0]


def test_comfyui_takes_the_nearest_timestep() -> None:
    sampling = comfyui("euler", "karras")
    lookup = sampling.lookup(SD, sampling.sigmas(SD, 10))
    assert lookup(1.0) == SD.nearest(1.0)
    for scheduler in COMFYUI_SPACINGS:
        assert comfyui("dpmpp_2m", scheduler).spacing == scheduler
    with pytest.raises(RequestError, match="dpm_adaptive"):
        comfyui("dpm_adaptive", "karras")
    with pytest.raises(RequestError, match="leading"):
        comfyui("euler", "leading")


def test_a_spacing_may_be_named_as_a1111_does() -> None:
    for label, spacing in A1111_SPACINGS.items():
        if label.lower() not in SPACINGS:
            assert spacing_name(label) == spacing
    assert [spacing_name(name) for name in SPACINGS] == list(SPACINGS)


def test_overrides_replace_only_what_is_named() -> None:
    model = from_scheduler_config(
        {"_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction"}
    )
    assert with_overrides(model) == model
    assert with_overrides(model, spacing="Karras") == replace(model, spacing="karras")
    changed = with_overrides(model, sampler="DPM++ 2M Karras")
    assert changed == replace(A1111["DPM++ 2M"], spacing="karras", prediction="v_prediction")
    assert with_overrides(model, sampler="euler_a", spacing="trailing").spacing == "trailing"


SHIPPED: dict[str, tuple[str, dict[str, Any]]] = {
    "Stable Diffusion 1.5": (
        """{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
        "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
        "clip_sample": false}""",
        {"sampler": "plms", "spacing": "leading", "end": "first", "offset": 1, "prediction": "epsilon"},
    ),
    "Stable Diffusion 2.1": (
        """{"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000,
        "prediction_type": "v_prediction", "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "trained_betas": null}""",
        {"sampler": "euler", "spacing": "leading", "end": "first", "offset": 1, "prediction": "v_prediction"},
    ),
    "Stable Diffusion XL": (
        """{"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "interpolation_type": "linear",
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": null,
        "use_karras_sigmas": false}""",
        {"sampler": "euler", "spacing": "leading", "end": "zero", "offset": 1, "enter": "unit_variance"},
    ),
    "Stable Diffusion XL Turbo": (
        """{"_class_name": "EulerAncestralDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "interpolation_type": "linear", "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "timestep_spacing": "trailing", "trained_betas": null, "use_karras_sigmas": false}""",
        {"sampler": "euler_ancestral", "spacing": "trailing", "end": "zero", "enter": "highest"},
    ),
}


@pytest.mark.parametrize("model", SHIPPED)
def test_published_models_are_sampled_as_their_config_says(model: str) -> None:
    text, expected = SHIPPED[model]
    sampling = from_scheduler_config(json.loads(text))
    assert {name: getattr(sampling, name) for name in expected} == expected


# A value other than the default for every option of a class, and what it must lead to: a Sampling or a refusal
CHANGED: dict[str, Any] = {
    "clip_sample": True,
    "set_alpha_to_one": False,
    "steps_offset": 3,
    "prediction_type": "v_prediction",
    "thresholding": True,
    "timestep_spacing": "trailing",
    "variance_type": "fixed_large",
    "skip_prk_steps": False,
    "interpolation_type": "log_linear",
    "use_karras_sigmas": True,
    "use_exponential_sigmas": True,
    "use_beta_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "timestep_type": "continuous",
    "final_sigmas_type": "sigma_min",
    "solver_order": 3,
    "algorithm_type": "sde-dpmsolver++",
    "solver_type": "heun",
    "lower_order_final": None,
    "euler_at_final": True,
    "use_lu_lambdas": True,
    "use_flow_sigmas": True,
    "lambda_min_clipped": -5.1,
    "use_dynamic_shifting": True,
    "predict_x0": False,
    "disable_corrector": [0],
    "solver_p": {},
    "shift_terminal": 0.1,
    "noise_sampler_seed": 0,
    "original_inference_steps": 25,
    "timestep_scaling": 5.0,
}
# Read by the schedule, or without effect unless another option that is refused is set
ELSEWHERE = {
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "flow_shift",
    "time_shift_type",
}
# Parameters that the class of diffusers takes and does not read, and substitutions that it makes itself
UNREAD = {
    "LCMScheduler": {"set_alpha_to_one", "steps_offset", "timestep_spacing"},
    "TCDScheduler": {"set_alpha_to_one", "steps_offset", "timestep_spacing", "timestep_scaling"},
    "UniPCMultistepScheduler": {"solver_type"},
    "DEISMultistepScheduler": {"solver_type"},
    "PNDMScheduler": set(),
}


@pytest.mark.parametrize("name", SCHEDULER_CLASSES)
def test_every_option_of_diffusers_changes_the_sampling_or_is_refused_by_name(name: str) -> None:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    base: dict[str, Any] = {"_class_name": name, "skip_prk_steps": True, "clip_sample": False}
    plain = from_scheduler_config(base)
    for option, parameter in parameters.items():
        if option == "self" or option in ELSEWHERE or option in UNREAD.get(name, set()):
            continue
        value = CHANGED[option]
        if isinstance(parameter.default, bool):
            value = not base.get(option, parameter.default)
        if option == "set_alpha_to_one":
            value = plain.end == "first"
        try:
            changed = from_scheduler_config(base | {option: value})
        except ConfigError as error:
            assert option in str(error), option
        else:
            assert changed != plain, option


@pytest.mark.parametrize("name", SCHEDULER_CLASSES)
def test_what_a_class_does_not_read_is_left_alone(name: str) -> None:
    """A config saved from one class and opened by another carries its options; diffusers ignores them."""
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    base: dict[str, Any] = {"_class_name": name, "skip_prk_steps": True, "clip_sample": False}
    leftovers = {
        "use_karras_sigmas": True,
        "final_sigmas_type": "sigma_min",
        "set_alpha_to_one": False,
        "solver_order": 3,
        "disable_corrector": [0],
        "euler_at_final": True,
        "timestep_scaling": 3.0,
    }
    unread = {option: value for option, value in leftovers.items() if option not in parameters}
    assert from_scheduler_config(base | unread) == from_scheduler_config(base)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({}, "None"),
        ({"_class_name": "DDIMScheduler"}, "clip_sample"),
        ({"_class_name": "PNDMScheduler"}, "skip_prk_steps"),
        ({"_class_name": "EulerDiscreteScheduler", "prediction_type": "flow"}, "flow"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "even"}, "even"),
        ({"_class_name": "EulerDiscreteScheduler", "steps_offset": 1.5}, "steps_offset"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": "yes"}, "use_karras_sigmas"),
        (
            {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "use_beta_sigmas": True},
            "At most one",
        ),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}, "solver_order 4"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}, "sigma_min"),
        ({"_class_name": "UniPCMultistepScheduler", "disable_corrector": "all"}, "disable_corrector"),
        ({"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0=False"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_a_config_error_that_names_it(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_scheduler_config(config)
