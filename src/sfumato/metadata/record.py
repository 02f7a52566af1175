"""What sfumato writes into its own pictures: one JSON record, and A1111's text for everybody else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from PIL import Image

from sfumato.metadata.containers import CHUNK, PARAMETERS
from sfumato.metadata.infotext import Infotext, format_infotext
from sfumato.request import Control, Hires, ImagePrompt, Lora, Request
from sfumato.request.said import Said, read_said

FORMAT = 1  # of the record; a reader refuses a higher one

# What A1111 calls the presets
A1111_SAMPLERS = {
    "ddim": "DDIM",
    "ddim_cfg_pp": "DDIM CFG++",
    "ddpm": "DDPM",
    "plms": "PLMS",
    "pndm": "PLMS",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "lms": "LMS",
    "lms_karras": "LMS",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_karras": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "deis": "DEIS",
    "unipc": "UniPC",
    "lcm": "LCM",
    "tcd": "TCD",
}
# and the spacings, where it has them
A1111_SCHEDULES = {
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "kl_optimal": "KL Optimal",
    "simple": "Simple",
    "normal": "Normal",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "beta_sigmas": "Beta",
    "align_your_steps": "Align Your Steps",
    "align_your_steps_sdxl": "Align Your Steps",
}
# What sd-webui-controlnet calls what we make for control networks, and how we let them act.
A1111_MODULES = {
    "scribble": "scribble_xdog",
    "blur": "blur_gaussian",
    "tile": "tile_resample",
    "colour": "t2ia_color_grid",
    "luminance": "recolor_luminance",
    "inpaint": "inpaint_only",
}
A1111_MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
    "guess": "ControlNet is more important",  # the nearest
}
A1111_RESIZES = {"crop": "Crop and Resize", "fill": "Resize and Fill", "stretch": "Just Resize"}


@dataclass(frozen=True)
class Provenance:
    """All that decides a picture beside its request.

    `hashes` are those of the weights by component; `environment` the versions, the device and the precision; `inputs`
    the sha256 of the upright pixels of the start image and the mask; `sampling` what the sampler's name stood for;
    `words` the prompts of the pictures that were drawn together, where styles or what is drawn was filled in.
    """

    model: str
    family: str
    hashes: Mapping[str, str]
    environment: Mapping[str, str | int]
    inputs: Mapping[str, str] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[Mapping[str, Any]] = ()


def pixels_digest(picture: Image.Image) -> str:
    """The sha256 of a picture's bytes, row by row: of its RGB, or of its grey when it is a mask."""
    return hashlib.sha256(picture.tobytes()).hexdigest()


def make_record(
    request: Request, index: int, picture: Image.Image, provenance: Provenance, *, halted_at: int | None = None
) -> dict[str, Any]:
    """The record of picture `index` of a resolved request; `halted_at`: the step after which it was called done."""
    return {
        "format": FORMAT,
        "request": request.to_dict(),
        "index": index,
        "seed": request.seed_of(index),
        "model": {"name": provenance.model, "family": provenance.family, "hashes": dict(provenance.hashes)},
        "sampling": dict(provenance.sampling),
        "inputs": dict(provenance.inputs),
        "environment": dict(provenance.environment),
        "pixels": {"sha256": pixels_digest(picture), "width": picture.width, "height": picture.height},
        **({} if halted_at is None else {"halted_at": halted_at}),
        **({"words": [dict(each) for each in provenance.words]} if provenance.words else {}),
    }


def record_infotext(record: Mapping[str, Any]) -> str:
    """A record as A1111 writes it, for the readers that know nothing else."""
    request = Request.from_dict(record["request"])
    sampling = record["sampling"]
    name = request.sampler or str(sampling.get("sampler", ""))
    parameters: dict[str, str | None] = {
        "Steps": str(request.steps),
        "Sampler": A1111_SAMPLERS.get(name, name),
        "Schedule type": A1111_SCHEDULES.get(str(sampling.get("spacing"))),
        "CFG scale": None if request.guidance is None else f"{request.guidance:g}",
        "Seed": str(record["seed"]),
        "Size": f"{request.width}x{request.height}" if request.hires else "{width}x{height}".format(**record["pixels"]),
        "Model": PurePath(record["model"]["name"]).name.removesuffix(".safetensors"),
        "VAE": request.vae,
        "Loras": ", ".join(_lora_text(lora) for lora in request.loras) or None,
        "Denoising strength": _strength(request),
        "Mask blur": None if request.mask_blur is None else f"{request.mask_blur:g}",
        **_picture_parameters(request, record["index"]),
        "Refiner": None if request.refiner is None else PurePath(request.refiner.model).stem,
        "Refiner switch at": None if request.refiner is None else f"{request.refiner.at:g}",
        "Soft inpainting enabled": None if request.soft_inpainting is None else "True",
        **_soft_parameters(request),
        "Tiling": "True" if request.tiling else None,
        "Clip skip": str(request.clip_skip + 1) if request.clip_skip else None,
        "ENSD": str(request.step_seed_delta) if request.step_seed_delta else None,
        "RNG": "GPU" if request.noise == "philox" else "CPU",
        "Halted at step": str(record["halted_at"]) if "halted_at" in record else None,
        "Version": f"sfumato {record['environment'].get('sfumato', '')}".strip(),
    }
    parameters |= {
        f"ControlNet {place}": _control_text(control, record["model"]["hashes"])
        for place, control in enumerate(request.controls)
    }
    units = len(request.controls)  # which sd-webui-controlnet counts together
    parameters |= {
        f"ControlNet {units + place}": _image_prompt_text(prompt, record["model"]["hashes"])
        for place, prompt in enumerate(request.image_prompts)
    }
    written = Said(request.prompts[record["index"] // request.count], request.negative_prompt)
    said = read_said(record).get(record["index"], written)
    known = {key: value for key, value in parameters.items() if value}
    return format_infotext(Infotext(said.prompt, said.negative_prompt, known))


_MASKED_CONTENT = {"fill": "fill", "noise": "latent noise", "nothing": "latent nothing"}  # A1111's words


_UPSCALERS = {
    "latent": "Latent",
    "latent_antialiased": "Latent (antialiased)",
    "latent_bicubic": "Latent (bicubic)",
    "latent_bicubic_antialiased": "Latent (bicubic antialiased)",
    "latent_nearest": "Latent (nearest)",
    "latent_nearest_exact": "Latent (nearest-exact)",
    "lanczos": "Lanczos",
    "nearest": "Nearest",
}


def upscaler_label(name: str) -> str:
    """What A1111 calls an upscaler: its own words, or the name of a network's file."""
    return _UPSCALERS.get(name, PurePath(name).stem)


def _strength(request: Request) -> str | None:
    """The strength, or that of the second pass: A1111 has one key for both."""
    strength = request.strength if request.hires is None else request.hires.strength
    return None if strength is None else f"{strength:g}"


def _hires_parameters(hires: Hires) -> dict[str, str | None]:
    """A second pass under A1111's names."""
    sampler = hires.sampler and A1111_SAMPLERS.get(hires.sampler, hires.sampler)
    return {
        "Hires upscale": None if hires.scale is None else f"{hires.scale:g}",
        "Hires resize": None if hires.size is None else "{}x{}".format(*hires.size),
        "Hires steps": None if hires.steps is None else str(hires.steps),
        "Hires upscaler": upscaler_label(hires.upscaler),
        "Hires sampler": sampler,
        "Hires schedule type": hires.spacing and A1111_SCHEDULES.get(hires.spacing, hires.spacing),
        "Hires prompt": hires.prompt,
        "Hires negative prompt": hires.negative_prompt,
    }


def _picture_parameters(request: Request, index: int) -> dict[str, str | None]:
    """What pictures are begun from and fitted by, under A1111's names."""
    variation = request.variation
    return {
        "Variation seed": None if variation is None else f"{(variation.seed or 0) + index}",
        "Variation seed strength": None if variation is None else f"{variation.strength:g}",
        "Seed resize from": None if request.seed_size is None else "{}x{}".format(*request.seed_size),
        "Mask mode": "Inpaint not masked" if request.mask_invert else None,
        "Masked content": _MASKED_CONTENT.get(request.masked_content or ""),
        "Inpaint area": "Only masked" if request.masked_only else None,
        "Masked area padding": None if request.padding is None else str(request.padding),
        **({} if request.hires is None else _hires_parameters(request.hires)),
    }


def _soft_parameters(request: Request) -> dict[str, str]:
    """A1111's names for soft inpainting's numbers."""
    numbers = {} if request.soft_inpainting is None else request.soft_inpainting.to_dict()
    return {
        f"Soft inpainting {name.replace('_', ' ')}": f"{value:g}"
        for name, value in numbers.items()
        if value is not None
    }


def _lora_text(lora: Lora) -> str:
    """A LoRA as A1111 names one in a prompt, where another tool would read it."""
    weights = f"{lora.weight:g}" if lora.weight == lora.text_weight else f"{lora.text_weight:g}:{lora.weight:g}"
    return f"<lora:{PurePath(lora.name).name.removesuffix('.safetensors')}:{weights}>"


def _control_text(control: Control, hashes: Mapping[str, str]) -> str:
    """A control as sd-webui-controlnet writes one, where A1111 would read it."""
    values = {
        "Module": A1111_MODULES.get(control.preprocessor, control.preprocessor),
        "Model": _network_text(control.model, hashes.get(f"control {control.model}", "")),
        "Weight": f"{control.weight:g}",
        "Resize Mode": A1111_RESIZES[control.resize],
        **{f"Threshold {letter}": f"{value:g}" for letter, value in zip("AB", control.options.values(), strict=False)},
        "Guidance Start": f"{control.start:g}",
        "Guidance End": f"{control.end:g}",
        "Pixel Perfect": "True",
        "Control Mode": A1111_MODES[control.mode],
    }
    return _unit_text(values)


def _image_prompt_text(prompt: ImagePrompt, hashes: Mapping[str, str]) -> str:
    """An image prompt as sd-webui-controlnet writes one."""
    values = {
        "Module": "ip-adapter-auto",
        "Model": _network_text(prompt.model, hashes.get(f"control {prompt.network}", "")),
        "Weight": f"{prompt.weight:g}",
        "Guidance Start": f"{prompt.start:g}",
        "Guidance End": f"{prompt.end:g}",
    }
    return _unit_text(values)


def _network_text(place: str, digest: str) -> str:
    name = PurePath(place).name.removesuffix(".safetensors")
    return f"{name} [{digest[:8]}]" if digest else name


def _unit_text(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def stamp(picture: Image.Image, record: Mapping[str, Any]) -> None:
    """Puts a record, and A1111's text of it, into `picture.info`, from where `save` writes them."""
    picture.info[PARAMETERS] = record_infotext(record)
    picture.info[CHUNK] = json.dumps(record, ensure_ascii=False)
