"""Samplings under the names that users know: ours, diffusers' classes, A1111's labels and ComfyUI's names."""

from dataclasses import replace

from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.scheduler_config import SCHEDULER_CLASSES, from_scheduler_config
from sfumato.diffusion.spacing import SPACINGS
from sfumato.errors import RequestError

__all__ = [
    "ALIASES",
    "PRESETS",
    "Sampling",
    "a1111",
    "comfyui",
    "from_scheduler_config",
    "preset",
    "spacing_name",
    "with_eta",
    "with_overrides",
]

CFG_PP = 1 / 12.5  # guidance 7.5 is lambda 0.6, which Chung et al. 2024 compare with it; A1111's factor too

EXACT = (("solver", "heun"),)  # the exact weight of the slope: the refined exponential solver's

PRESETS: dict[str, Sampling] = {
    "ddim": Sampling(sampler="euler", spacing="leading", offset=1, end="first"),
    "ddim_cfg_pp": Sampling(sampler="euler", spacing="leading", offset=1, end="first", plus_plus=CFG_PP),
    "ddpm": Sampling(sampler="euler_ancestral", spacing="leading", offset=1),
    "pndm": Sampling(sampler="plms", spacing="leading", offset=1, end="first"),
    "plms": Sampling(sampler="plms", spacing="leading", offset=1, end="first"),
    "euler": Sampling(sampler="euler", spacing="normal"),
    "euler_a": Sampling(sampler="euler_ancestral", spacing="normal"),
    "euler_cfg_pp": Sampling(sampler="euler", spacing="normal", plus_plus=CFG_PP),
    "euler_a_cfg_pp": Sampling(sampler="euler_ancestral", spacing="normal", plus_plus=CFG_PP),
    "dpmpp_2m_cfg_pp": Sampling(sampler="dpmpp_2m_cfg_pp", spacing="karras", plus_plus=CFG_PP),
    "dpmpp_2s_a_cfg_pp": Sampling(sampler="dpmpp_2s_ancestral_cfg_pp", spacing="karras", plus_plus=CFG_PP),
    "res_multistep": Sampling(sampler="dpmpp_multistep", spacing="karras", options=EXACT),
    "res_multistep_cfg_pp": Sampling(sampler="res_multistep_cfg_pp", spacing="karras", plus_plus=CFG_PP),
    "heun": Sampling(sampler="heun", spacing="normal"),
    "dpm2": Sampling(sampler="dpm2", spacing="karras", discard_penultimate=True),
    "dpm2_a": Sampling(sampler="dpm2_ancestral", spacing="karras", discard_penultimate=True),
    "lms": Sampling(sampler="lms", spacing="normal"),
    "lms_karras": Sampling(sampler="lms", spacing="karras"),
    "dpmpp_2s_a": Sampling(sampler="dpmpp_2s_ancestral", spacing="karras"),
    "dpmpp_2m": Sampling(sampler="dpmpp_2m", spacing="normal"),
    "dpmpp_2m_karras": Sampling(sampler="dpmpp_2m", spacing="karras"),
    "dpmpp_sde": Sampling(sampler="dpmpp_sde", spacing="karras"),
    "dpmpp_2m_sde": Sampling(sampler="dpmpp_2m_sde", spacing="exponential"),
    "dpmpp_2m_sde_karras": Sampling(sampler="dpmpp_2m_sde", spacing="karras"),
    "dpmpp_2m_sde_heun": Sampling(sampler="dpmpp_2m_sde_heun", spacing="exponential"),
    "dpmpp_3m_sde": Sampling(sampler="dpmpp_3m_sde", spacing="exponential", discard_penultimate=True),
    "deis": Sampling(sampler="deis", spacing="linspace", drop_lowest=True, end="first"),
    "unipc": Sampling(sampler="unipc", spacing="linspace", drop_lowest=True),
    "lcm": Sampling(sampler="lcm", spacing="distilled"),
    "tcd": Sampling(sampler="tcd", spacing="distilled", end="first"),
}
"""Our names. Those of k-diffusion's samplers have the spacing that A1111 chooses for them."""

UNIPC_BH1 = (("order", 3), ("variant", "bh1"))  # A1111's and ComfyUI's defaults; diffusers' are 2 and bh2

A1111: dict[str, Sampling] = {
    "Euler a": replace(PRESETS["euler_a"], enter="highest"),
    "Euler": replace(PRESETS["euler"], enter="highest"),
    "LMS": replace(PRESETS["lms"], enter="highest"),
    "Heun": replace(PRESETS["heun"], enter="highest"),
    "DPM2": replace(PRESETS["dpm2"], enter="highest"),
    "DPM2 a": replace(PRESETS["dpm2_a"], enter="highest"),
    "DPM++ 2S a": replace(PRESETS["dpmpp_2s_a"], enter="highest"),
    "DPM++ 2M": replace(PRESETS["dpmpp_2m_karras"], enter="highest"),
    "DPM++ SDE": replace(PRESETS["dpmpp_sde"], enter="highest"),
    "DPM++ 2M SDE": replace(PRESETS["dpmpp_2m_sde"], enter="highest"),
    "DPM++ 2M SDE Heun": replace(PRESETS["dpmpp_2m_sde_heun"], enter="highest"),
    "DPM++ 3M SDE": replace(PRESETS["dpmpp_3m_sde"], enter="highest"),
    "LCM": Sampling(sampler="lcm", spacing="normal", enter="highest"),
    "DDIM": PRESETS["ddim"],
    "DDIM CFG++": PRESETS["ddim_cfg_pp"],
    "PLMS": PRESETS["plms"],
    "UniPC": Sampling(sampler="unipc", spacing="leading", offset=1, end="first", options=UNIPC_BH1),
}
"""A1111's labels with the schedule type that its version 1.10 calls automatic."""

A1111_SPACINGS: dict[str, str] = {
    "Uniform": "normal",
    "Karras": "karras",
    "Exponential": "exponential",
    "Polyexponential": "polyexponential",
    "SGM Uniform": "sgm_uniform",
    "KL Optimal": "kl_optimal",
    "Align Your Steps": "align_your_steps",
    "Simple": "simple",
    "Normal": "normal",
    "DDIM": "ddim_uniform",
    "Beta": "beta_sigmas",
}
"""A1111's schedule types. Its KL Optimal has one level more above the end, and ends at the lowest level, not at 0."""

COMFYUI: dict[str, Sampling] = {
    "euler": Sampling(sampler="euler", spacing="normal", rule="nearest"),
    "euler_ancestral": Sampling(sampler="euler_ancestral", spacing="normal", rule="nearest"),
    # their lambda is the cfg itself
    "euler_cfg_pp": Sampling(sampler="euler", spacing="normal", rule="nearest", plus_plus=1.0),
    "euler_ancestral_cfg_pp": Sampling(sampler="euler_ancestral", spacing="normal", rule="nearest", plus_plus=1.0),
    "dpmpp_2m_cfg_pp": Sampling(sampler="dpmpp_2m_cfg_pp", spacing="normal", rule="nearest", plus_plus=1.0),
    "dpmpp_2s_ancestral_cfg_pp": Sampling(
        sampler="dpmpp_2s_ancestral_cfg_pp", spacing="normal", rule="nearest", plus_plus=1.0
    ),
    "res_multistep": Sampling(sampler="dpmpp_multistep", spacing="normal", rule="nearest", options=EXACT),
    "res_multistep_cfg_pp": Sampling(sampler="res_multistep_cfg_pp", spacing="normal", rule="nearest", plus_plus=1.0),
    "heun": Sampling(sampler="heun", spacing="normal", rule="nearest"),
    "dpm_2": Sampling(sampler="dpm2", spacing="normal", rule="nearest", discard_penultimate=True),
    "dpm_2_ancestral": Sampling(sampler="dpm2_ancestral", spacing="normal", rule="nearest", discard_penultimate=True),
    "lms": Sampling(sampler="lms", spacing="normal", rule="nearest"),
    "dpmpp_2s_ancestral": Sampling(sampler="dpmpp_2s_ancestral", spacing="normal", rule="nearest"),
    "dpmpp_sde": Sampling(sampler="dpmpp_sde", spacing="normal", rule="nearest"),
    "dpmpp_sde_gpu": Sampling(sampler="dpmpp_sde", spacing="normal", rule="nearest"),
    "dpmpp_2m": Sampling(sampler="dpmpp_2m", spacing="normal", rule="nearest"),
    "dpmpp_2m_sde": Sampling(sampler="dpmpp_2m_sde", spacing="normal", rule="nearest"),
    "dpmpp_2m_sde_gpu": Sampling(sampler="dpmpp_2m_sde", spacing="normal", rule="nearest"),
    "dpmpp_2m_sde_heun": Sampling(sampler="dpmpp_2m_sde_heun", spacing="normal", rule="nearest"),
    "dpmpp_2m_sde_heun_gpu": Sampling(sampler="dpmpp_2m_sde_heun", spacing="normal", rule="nearest"),
    "dpmpp_3m_sde": Sampling(sampler="dpmpp_3m_sde", spacing="normal", rule="nearest"),
    "dpmpp_3m_sde_gpu": Sampling(sampler="dpmpp_3m_sde", spacing="normal", rule="nearest"),
    "ddpm": Sampling(sampler="euler_ancestral", spacing="normal", rule="nearest"),
    "lcm": Sampling(sampler="lcm", spacing="normal", rule="nearest"),
    "ddim": Sampling(sampler="euler", spacing="normal", rule="nearest"),
    "uni_pc": Sampling(sampler="unipc", spacing="normal", rule="nearest", discard_penultimate=True, options=UNIPC_BH1),
    "uni_pc_bh2": Sampling(
        sampler="unipc", spacing="normal", rule="nearest", discard_penultimate=True, options=(("order", 3),)
    ),
}
"""ComfyUI's sampler names; the spacing is always chosen beside them."""

COMFYUI_SPACINGS = (
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "kl_optimal",
)

ALIASES: dict[str, str] = {
    "k_euler": "euler",
    "euler_ancestral": "euler_a",
    "k_euler_a": "euler_a",
    "k_euler_ancestral": "euler_a",
    "euler_ancestral_cfg_pp": "euler_a_cfg_pp",
    "dpmpp_2s_ancestral_cfg_pp": "dpmpp_2s_a_cfg_pp",
    "k_lms": "lms",
    "k_lms_ka": "lms_karras",
    "k_heun": "heun",
    "dpm_2": "dpm2",
    "k_dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "dpm2_ancestral": "dpm2_a",
    "k_dpm_2_a": "dpm2_a",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "k_dpmpp_2s_a": "dpmpp_2s_a",
    "k_dpmpp_2m": "dpmpp_2m",
    "k_dpmpp_2m_ka": "dpmpp_2m_karras",
    "k_dpmpp_sde": "dpmpp_sde",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun_gpu": "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "uni_pc": "unipc",
}
"""Other spellings of our names."""

STABLE_DIFFUSION_CONFIG: dict[str, object] = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""What Stable Diffusion's published configs say beside the class, for a class that is asked for by name."""


def preset(name: str) -> Sampling:
    """The sampling that a name stands for: ours, an alias, a diffusers class or an A1111 label.

    A1111's older labels end with a schedule type: "DPM++ 2M Karras". Raises RequestError for a name not known.
    """
    if name in A1111:
        return A1111[name]
    if name in SCHEDULER_CLASSES:
        return from_scheduler_config({"_class_name": name, **STABLE_DIFFUSION_CONFIG})
    lowered = name.lower()
    found = ALIASES.get(lowered, lowered)
    if found in PRESETS:
        return PRESETS[found]
    for label, spacing in A1111_SPACINGS.items():
        if name.endswith(f" {label}") and name.removesuffix(f" {label}") in A1111:
            return replace(A1111[name.removesuffix(f" {label}")], spacing=spacing)
    raise RequestError(
        f"sampler {name!r} is not known; known are {', '.join(PRESETS)}, the names of diffusers' scheduler classes, "
        "and A1111's labels such as 'DPM++ 2M Karras'.",
        field="sampler",
    )


def a1111(label: str, schedule_type: str = "Automatic") -> Sampling:
    """What A1111's version 1.10 does under a sampler's label and a schedule type. Raises RequestError for others."""
    sampling = preset(label)
    if schedule_type.lower() == "automatic":
        return sampling
    return replace(sampling, spacing=spacing_name(schedule_type))


def comfyui(sampler: str, scheduler: str) -> Sampling:
    """What ComfyUI's KSampler does under a sampler's and a scheduler's name. Raises RequestError for others."""
    if sampler not in COMFYUI:
        raise RequestError(f"sampler {sampler!r} is not known; known are {', '.join(COMFYUI)}.", field="sampler")
    if scheduler not in COMFYUI_SPACINGS:
        known = ", ".join(COMFYUI_SPACINGS)
        raise RequestError(f"scheduler {scheduler!r} is not known; known are {known}.", field="spacing")
    return replace(COMFYUI[sampler], spacing=scheduler)


def spacing_name(name: str) -> str:
    """The key of SPACINGS that a name stands for: itself, or an A1111 schedule type. Raises RequestError."""
    if name in SPACINGS:
        return name
    for label, spacing in A1111_SPACINGS.items():
        if name in (label, label.lower().replace(" ", "_"), label.replace(" ", "")):
            return spacing
    raise RequestError(f"spacing {name!r} is not known; known are {', '.join(SPACINGS)}.", field="spacing")


def with_eta(sampling: Sampling, eta: float) -> Sampling:
    """A sampling with another share of fresh noise; its sampler must be one that takes it (`TAKES_ETA`)."""
    return replace(sampling, options=(*(pair for pair in sampling.options if pair[0] != "eta"), ("eta", eta)))


def with_overrides(sampling: Sampling, *, sampler: str | None = None, spacing: str | None = None) -> Sampling:
    """A sampling with the sampler, the spacing or both replaced by name; what is None stays.

    A sampler brings the spacing and the ends of its preset with it; the prediction stays.
    """
    if sampler is not None:
        sampling = replace(preset(sampler), prediction=sampling.prediction)
    if spacing is not None:
        sampling = replace(sampling, spacing=spacing_name(spacing))
    return sampling
