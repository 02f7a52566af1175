"""A1111's infotext as fields: `png-info` tells it, and a request may be filled in from it."""

import re
from collections.abc import Mapping
from typing import Any

from sfumato.metadata import parse_infotext

_SIZE = re.compile(r"(\d+)x(\d+)")

# What modules/infotext_utils.py adds where a text is silent
_DEFAULTS = {
    "Clip skip": "1",
    "Hypernet": "",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Cache FP16 weight for LoRA": False,
    "Emphasis": "Original",
    "Refiner switch by sampling steps": False,
}

# body field -> the infotext's key, and what it is there
_BODY: dict[str, tuple[str, type]] = {
    "prompt": ("Prompt", str),
    "negative_prompt": ("Negative prompt", str),
    "steps": ("Steps", int),
    "sampler_name": ("Sampler", str),
    "scheduler": ("Schedule type", str),
    "cfg_scale": ("CFG scale", float),
    "seed": ("Seed", int),
    "width": ("Size-1", int),
    "height": ("Size-2", int),
    "denoising_strength": ("Denoising strength", float),
    "subseed": ("Variation seed", int),
    "subseed_strength": ("Variation seed strength", float),
    "seed_resize_from_w": ("Seed resize from-1", int),
    "seed_resize_from_h": ("Seed resize from-2", int),
    "eta": ("Eta", float),
    "mask_blur": ("Mask blur", int),
    "inpaint_full_res_padding": ("Masked area padding", int),
    "tiling": ("Tiling", bool),
    "refiner_checkpoint": ("Refiner", str),
    "refiner_switch_at": ("Refiner switch at", float),
    "hr_scale": ("Hires upscale", float),
    "hr_upscaler": ("Hires upscaler", str),
    "hr_second_pass_steps": ("Hires steps", int),
    "hr_resize_x": ("Hires resize-1", int),
    "hr_resize_y": ("Hires resize-2", int),
    "hr_sampler_name": ("Hires sampler", str),
    "hr_scheduler": ("Hires schedule type", str),
    "hr_prompt": ("Hires prompt", str),
    "hr_negative_prompt": ("Hires negative prompt", str),
}
_OPTIONS: dict[str, tuple[str, type]] = {
    "CLIP_stop_at_last_layers": ("Clip skip", int),
    "eta_noise_seed_delta": ("ENSD", int),
    "randn_source": ("RNG", str),
    "sd_vae": ("VAE", str),
}


def parameters_of(text: str) -> dict[str, Any]:
    """What an infotext says, key by key, as A1111's `png-info` has it: sizes taken apart, defaults filled in."""
    if not text.strip():
        return {}
    info = parse_infotext(text)
    found: dict[str, Any] = {"Prompt": info.prompt, "Negative prompt": info.negative_prompt}
    for key, value in info.parameters.items():
        size = _SIZE.fullmatch(value)
        if size is None:
            found[key] = value
        else:
            found |= {f"{key}-1": size[1], f"{key}-2": size[2]}
    return {**{key: value for key, value in _DEFAULTS.items() if key not in found}, **found}


def filled_in(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with what its `infotext` says in the fields and options that it leaves out.

    Values that are no numbers where there should be some are left out, as A1111 does.
    """
    text = body.get("infotext")
    if not isinstance(text, str) or not text.strip():
        return dict(body)
    found = parameters_of(text)
    stated = {name: value for name, value in body.items() if value is not None}
    override = stated.get("override_settings")
    override = dict(override) if isinstance(override, dict) else {}
    settings = {**_read(_OPTIONS, found), **_checkpoint(found), **override}
    if "sampler_name" not in stated and "sampler_index" in stated:
        stated["sampler_name"] = stated["sampler_index"]
    read = _read(_BODY, found)
    return {**body, **read, **_hires(found, read), **stated, "override_settings": settings}


def _read(table: Mapping[str, tuple[str, type]], found: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, (key, kind) in table.items():
        if key not in found:
            continue
        try:
            values[name] = str(found[key]) == "True" if kind is bool else kind(found[key])
        except ValueError:
            continue
    same = [name for name, value in values.items() if isinstance(value, str) and value.startswith("Use same ")]
    return {name: value for name, value in values.items() if name not in same}


def _checkpoint(found: Mapping[str, Any]) -> dict[str, str]:
    named = found.get("Model") or found.get("Model hash")
    return {"sd_model_checkpoint": str(named)} if named else {}


def _hires(found: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, bool]:
    """A second pass is meant where the text names one; A1111 shows that by its denoising strength."""
    return {"enable_hr": True} if "Hires upscale" in found or read.get("hr_resize_x", 0) > 0 else {}
