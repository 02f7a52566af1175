"""From a body of A1111's txt2img or img2img to the Request that draws what A1111 would draw.

What cannot be honoured and would change the picture is a problem that names the field; what changes nothing (how and
where A1111 saves, its progress) is read and left. Sizes that are not sent are the model's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sfumato.errors import RequestError
from sfumato.request import Request
from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_controlnet import unit_picture, units_of
from sfumato.server.dialects.a1111_fields import Fields, refuse
from sfumato.server.dialects.a1111_hires import hires_of
from sfumato.server.dialects.a1111_options import check_options, effective
from sfumato.server.dialects.a1111_samplers import Sampler, read_sampler, spacing_of
from sfumato.server.dialects.a1111_scripts import CONTROLNET, script_fields, scripts_of
from sfumato.server.problems import Problem

RESIZE_MODES = {0: "stretch", 1: "crop", 2: "fill", 3: "latent"}
MASKED_CONTENTS = {0: "fill", 1: "original", 2: "noise", 3: "nothing"}

# Our fields -> A1111's, for problems that are found in the request
FIELDS = {
    "negative_prompt": "negative_prompt",
    "guidance": "cfg_scale",
    "sampler": "sampler_name",
    "spacing": "scheduler",
    "strength": "denoising_strength",
    "image": "init_images",
    "count": "n_iter",
    "batch": "batch_size",
    "clip_skip": "CLIP_stop_at_last_layers",
    "model": "sd_model_checkpoint",
    "vae": "sd_vae",
    "variation": "subseed_strength",
    "seed_size": "seed_resize_from_w",
    "padding": "inpaint_full_res_padding",
    "masked_only": "inpaint_full_res",
    "masked_content": "inpainting_fill",
    "masking": "sfumato_masking",
    "hires": "enable_hr",
    "hires.scale": "hr_scale",
    "hires.size": "hr_resize_x",
    "hires.upscaler": "hr_upscaler",
    "hires.strength": "denoising_strength",
    "hires.steps": "hr_second_pass_steps",
    "hires.prompt": "hr_prompt",
    "hires.negative_prompt": "hr_negative_prompt",
    "hires.sampler": "hr_sampler_name",
    "hires.spacing": "hr_scheduler",
    "refiner": "refiner_checkpoint",
    "at": "refiner_switch_at",
    "image_prompts": "alwayson_scripts",
    "soft_inpainting": "alwayson_scripts",
    "controls": "alwayson_scripts",
    "self_attention_guidance": "alwayson_scripts",
}


@dataclass(frozen=True)
class Order:
    """What a body asks for: the request, and what of A1111's own words the answer repeats."""

    request: Request
    options: Mapping[str, Any]
    styles: tuple[str, ...] = ()
    prompt: str = ""
    negative_prompt: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


def lower(
    body: Mapping[str, Any],
    options: Mapping[str, Any],
    catalogue: Catalogue,
    pictures: Mapping[str, str],
    *,
    img2img: bool,
) -> Order:
    """The order of a body. `pictures` are the ids of its pictures, already handed in, under "image" and "mask".

    Raises Problem: 404 for a sampler or model that is not there, 422 for a field that is wrong or cannot be honoured.
    """
    fields = Fields(body)
    options = effective(options, fields.object("override_settings"))
    check_options(options)
    check_extras(fields)
    chosen = Fields(options)
    sampler, scheduler = read_sampler(
        fields.text("sampler_name") or fields.text("sampler_index", "Euler"), fields.text("scheduler")
    )
    check_churn(fields, sampler)
    model = catalogue.model(options.get("sd_model_checkpoint"))
    prompts = (fields.text("prompt"), fields.text("negative_prompt"))
    styles = styles_of(fields)
    values: dict[str, Any] = {
        "prompt": prompts[0],
        "negative_prompt": prompts[1],
        "styles": tuple(name for name in styles if name in catalogue.styles),  # A1111 has others change nothing
        "model": model.name if model else None,
        "vae": catalogue.vae(options.get("sd_vae")),
        "seed": seed_of(fields, "seed"),
        "steps": fields.whole("steps", 50),
        "guidance": fields.number("cfg_scale", 7.0),
        "sampler": sampler.name,
        "spacing": spacing_of(sampler, scheduler, sdxl=model is not None and model.family.startswith("sdxl")),
        "eta": fields.number("eta", 0.0) if sampler.eta and fields.has("eta") else None,
        "clip_skip": chosen.whole("CLIP_stop_at_last_layers", 1) - 1,
        "step_seed_delta": chosen.whole("eta_noise_seed_delta", 0) or None,
        "noise": noise_of(chosen.text("randn_source"), img2img=img2img),
        "tiling": "both" if fields.flag("tiling") else None,
        **size_of(fields),
        **number_of_pictures(fields),
        **refiner_of(fields, catalogue),
        **variation_of(fields),
        **script_fields(scripts_of(fields), pictures, catalogue),
    }
    values |= start_of(fields, pictures, options) if img2img else hires_of(fields, catalogue, model)
    try:
        request = Request(**values)
    except RequestError as error:
        raise as_a1111(error) from error
    return Order(
        request,
        options,
        styles,
        *prompts,
    )


def picture_fields(body: Mapping[str, Any], *, img2img: bool) -> dict[str, str]:
    """The pictures of a body, as base64, under the names by which `lower` wants their ids.

    Raises Problem: 404 without a start picture, as A1111 does, and 422 for more than one.
    """
    fields, found = Fields(body), {}
    if img2img:
        starts = fields.items("init_images")
        if not starts:
            raise Problem(404, "picture.missing", "Init image not found", field="init_images")
        if len(starts) > 1:
            raise refuse("init_images", f"has {len(starts)} pictures; sfumato begins with one: send the others apart")
        found["image"] = starts[0]
        if fields.text("mask"):
            found["mask"] = fields.text("mask")
    for place, unit in enumerate(units_of(scripts_of(fields).get(CONTROLNET, []))):
        if (picture := unit_picture(unit)) is not None:
            found[f"control {place}"] = picture
    return found


def as_a1111(error: RequestError) -> Problem:
    """A problem that a request found, under A1111's name of the field."""
    name = FIELDS.get(error.field or "", error.field or "body")
    told = str(error) if name in str(error) else f"{name}: {error}"
    return Problem(422, f"request.{name}", told, field=name)


def styles_of(fields: Fields) -> tuple[str, ...]:
    """The names of styles that are sent."""
    names = fields.items("styles")
    if not all(isinstance(name, str) for name in names):
        raise refuse("styles", f"is {names!r}; it must be a list of names")
    return tuple(names)


def size_of(fields: Fields) -> dict[str, int | None]:
    """Width and height where they are sent."""
    return {side: fields.whole(side, 0) if fields.has(side) else None for side in ("width", "height")}


def refiner_of(fields: Fields, catalogue: Catalogue) -> dict[str, Any]:
    """The model that draws on from a part of the timesteps; from the first one, where no part is told, as in A1111."""
    name, part = fields.text("refiner_checkpoint"), fields.number("refiner_switch_at", 0.0)
    if name in ("", "None", "none") or part >= 1.0:
        return {}
    model = catalogue.model(name, field="refiner_checkpoint")
    return {"refiner": {"model": model.name if model else name, "at": part}}


def number_of_pictures(fields: Fields) -> dict[str, int]:
    """`n_iter` batches of `batch_size` pictures each."""
    batch, batches = fields.whole("batch_size", 1), fields.whole("n_iter", 1)
    for name, value in (("batch_size", batch), ("n_iter", batches)):
        if value < 1:
            raise refuse(name, f"is {value}; it must be at least 1")
    return {"count": batch * batches, "batch": batch}


def seed_of(fields: Fields, name: str) -> int | None:
    """A seed; -1, null and "" are a random one."""
    if fields.body.get(name) == "":
        return None
    seed = fields.whole(name, -1)
    return None if seed == -1 else seed


def variation_of(fields: Fields) -> dict[str, Any]:
    """The subseed and the size that the seed was found at, where they count."""
    values: dict[str, Any] = {}
    if strength := fields.number("subseed_strength", 0.0):
        subseed = seed_of(fields, "subseed")
        values["variation"] = {"strength": strength} | ({} if subseed is None else {"seed": subseed})
    size = (fields.whole("seed_resize_from_w", 0), fields.whole("seed_resize_from_h", 0))
    if min(size) > 0:
        values["seed_size"] = size
    return values


def noise_of(source: str, *, img2img: bool) -> str:
    """Where the noise comes from. A1111's GPU draws what our emulation of it does; its CPU what PyTorch's does.

    With a start picture our stream on the CPU would begin with the noise of its posterior, so that keyed noise, whose
    start is the same, is nearer.
    """
    if source.upper() in ("GPU", "NV"):
        return "philox"
    if source.upper() != "CPU":
        raise refuse("randn_source", f"is {source!r}; it must be GPU, CPU or NV")
    return "keyed" if img2img else "sequential"


def start_of(fields: Fields, pictures: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields about the start picture and the mask."""
    mode = fields.whole("resize_mode", 0)
    if mode == 3 and "mask" in pictures:
        raise refuse("resize_mode", "is 3, a scaled latent, with a mask; 0 scales the picture")
    if mode not in RESIZE_MODES:
        raise refuse("resize_mode", f"is {mode}; it must be 0, 1, 2 or 3")
    if fields.number("initial_noise_multiplier", 1.0) != 1.0:
        raise refuse("initial_noise_multiplier", "is not 1; sfumato does not scale the noise")
    values: dict[str, Any] = {
        "image": pictures["image"],
        "strength": fields.number("denoising_strength", 0.75),
        "strength_rule": "whole" if options.get("img2img_fix_steps") else "a1111",
    }
    masked = "mask" in pictures
    if masked:
        values |= mask_of(fields, pictures["mask"])
        values["masking"] = options.get("sfumato_masking") or None
    if not values.get("masked_only"):
        values["resize_mode"] = RESIZE_MODES[mode]
    return values


def mask_of(fields: Fields, mask: str) -> dict[str, Any]:
    """The fields about the mask: white is repainted."""
    content = fields.whole("inpainting_fill", 0)
    if content not in MASKED_CONTENTS:
        raise refuse("inpainting_fill", f"is {content}; it must be 0, 1, 2 or 3")
    sides = {fields.whole(name, -1) for name in ("mask_blur_x", "mask_blur_y") if fields.has(name)}
    if fields.has("mask_blur"):
        sides = {fields.whole("mask_blur", 4)}
    if len(sides) > 1:
        raise refuse("mask_blur_x", "is not mask_blur_y; sfumato blurs the same in both directions")
    only = fields.flag("inpaint_full_res", True)
    return {
        "mask": mask,
        "mask_blur": next(iter(sides), 4),
        "mask_invert": fields.flag("inpainting_mask_invert"),
        "masked_content": MASKED_CONTENTS[content],
        "masked_only": only,
        "padding": fields.whole("inpaint_full_res_padding", 0) if only else None,
    }


def check_churn(fields: Fields, sampler: Sampler) -> None:
    """Raise the problem of noise within the steps that the sampler would take and ours do not."""
    churn = fields.number("s_churn", 0.0) if sampler.churn else 0.0
    if churn:
        raise refuse("s_churn", f"is {churn:g}; sfumato's {sampler.name} adds no noise: send 0")
    noise = fields.number("s_noise", 1.0) if sampler.noise else 1.0
    if noise != 1.0:
        raise refuse("s_noise", f"is {noise:g}; sfumato does not scale the noise of {sampler.name}: send 1")
    if fields.number("s_min_uncond", 0.0) > 0:
        raise refuse("s_min_uncond", "is above 0; sfumato does not leave out negative guidance: send 0")


def check_extras(fields: Fields) -> None:
    """Raise the problem of what would run beside the sampler and is not there."""
    if fields.text("script_name"):
        raise refuse("script_name", f": Script '{fields.text('script_name')}' not found; there are none")
    if fields.flag("restore_faces"):
        raise refuse("restore_faces", "is true; sfumato has no face restorers")
