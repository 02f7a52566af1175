"""A1111's second pass ("Hires. fix") as the request's."""

from typing import Any

from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_fields import Fields, refuse
from sfumato.server.dialects.a1111_samplers import find_scheduler, read_sampler, spacing_of
from sfumato.server.values import ModelCard

SAME = ("", "None", "Use same sampler", "Use same scheduler", "Use same checkpoint")


def hires_of(fields: Fields, catalogue: Catalogue, model: ModelCard | None) -> dict[str, Any]:
    """The fields of a request that a second pass needs; none without `enable_hr`.

    The second pass runs all its steps, whatever the strength: A1111's `setup_img2img_steps` with steps that are given.
    """
    if not fields.flag("enable_hr"):
        return {}
    other = fields.text("hr_checkpoint_name")
    if other not in SAME and catalogue.model(other, field="hr_checkpoint_name") != model:
        raise refuse("hr_checkpoint_name", f"is {other!r}; sfumato draws both passes with one model")
    upscaler = fields.text("hr_upscaler", "Latent")
    values: dict[str, Any] = {
        "upscaler": "lanczos" if upscaler == "None" else catalogue.upscaler(upscaler),
        "strength": fields.number("denoising_strength", 0.75),
        "strength_rule": "whole",
        "steps": fields.whole("hr_second_pass_steps", 0) or None,
        "prompt": fields.text("hr_prompt") or None,
        "negative_prompt": fields.text("hr_negative_prompt") or None,
        **sampling_of(fields, sdxl=model is not None and model.family.startswith("sdxl")),
    }
    for name in ("hr_prompt", "hr_negative_prompt"):
        if "<lora:" in fields.text(name):
            raise refuse(name, "names a LoRA; sfumato draws both passes with one model: name it in the prompt")
    size = size_of(fields)
    return {"hires": {**values, **size.pop("hires")}, **size}


def sampling_of(fields: Fields, *, sdxl: bool) -> dict[str, str | None]:
    """The second pass's sampler and spacing, where they are others."""
    name, kind = fields.text("hr_sampler_name"), fields.text("hr_scheduler")
    kind = "" if kind in SAME else kind
    if name not in SAME:
        sampler, scheduler = read_sampler(name, kind)
        return {"sampler": sampler.name, "spacing": spacing_of(sampler, scheduler, sdxl=sdxl)}
    scheduler_alone = find_scheduler(kind or "automatic")
    if scheduler_alone is None:
        raise refuse("hr_scheduler", f"is {kind!r}; GET /sdapi/v1/schedulers lists those there are")
    return {"sampler": None, "spacing": scheduler_alone.spacing}


def size_of(fields: Fields) -> dict[str, Any]:
    """How large the second pass is: a factor, a size, or (in old requests) the size of a smaller first pass."""
    first = (fields.whole("firstphase_width", 0), fields.whole("firstphase_height", 0))
    if any(first):
        if not all(first) or not (fields.has("width") and fields.has("height")):
            raise refuse("firstphase_width", "is given; firstphase_height, width and height must be, too")
        target = (fields.whole("width", 0), fields.whole("height", 0))
        return {"hires": {"size": target}, "width": first[0], "height": first[1]}
    wide, high = fields.whole("hr_resize_x", 0), fields.whole("hr_resize_y", 0)
    if not wide and not high:
        return {"hires": {"scale": fields.number("hr_scale", 2.0)}}
    if not (wide and high):
        width, height = fields.whole("width", 512), fields.whole("height", 512)
        wide, high = (wide, wide * height // width) if wide else (high * width // height, high)
    return {"hires": {"size": (wide, high)}}
