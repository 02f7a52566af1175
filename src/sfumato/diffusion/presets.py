"""Samplings under the names that users know: ours, diffusers' classes, A1111's labels and ComfyUI's names."""

from dataclasses import replace

from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.scheduler_config import SCHEDULER_CLASSES, from_scheduler_config
from sfumato.errors import RequestError

__all__ = ["PRESETS", "Sampling", "from_scheduler_config", "preset", "with_overrides"]

PRESETS: dict[str, Sampling] = {
    "ddim": Sampling(sampler="euler", spacing="leading", offset=1, end="first"),
    "ddpm": Sampling(sampler="euler", spacing="leading", offset=1, options=(("eta", 1.0),)),
    "pndm": Sampling(sampler="plms", spacing="leading", offset=1, end="first"),
    "plms": Sampling(sampler="plms", spacing="leading", offset=1, end="first"),
    "euler": Sampling(sampler="euler", spacing="normal"),
    "euler_a": Sampling(sampler="euler_ancestral", spacing="normal"),
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

ALIASES: dict[str, str] = {
    "k_euler": "euler",
    "euler_ancestral": "euler_a",
    "k_euler_a": "euler_a",
    "k_euler_ancestral": "euler_a",
    "dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun_gpu": "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "uni_pc": "unipc",
}


def preset(name: str) -> Sampling:
    """The sampling that a name stands for. Raises RequestError for a name that is not known."""
    found = ALIASES.get(name, name)
    if found in PRESETS:
        return PRESETS[found]
    if found in SCHEDULER_CLASSES:
        return from_scheduler_config({"_class_name": found})
    raise RequestError(f"sampler {name!r} is not known; known are {', '.join(PRESETS)}.", field="sampler")


def with_overrides(sampling: Sampling, *, sampler: str | None = None, spacing: str | None = None) -> Sampling:
    """A sampling with the sampler, the spacing or both replaced by name; what is None stays."""
    if sampler is not None:
        sampling = replace(preset(sampler), prediction=sampling.prediction)
    if spacing is not None:
        sampling = replace(sampling, spacing=spacing, bounds=None)
    return sampling
