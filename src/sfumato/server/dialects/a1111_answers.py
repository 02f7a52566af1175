"""From a finished job to A1111's answer: pictures as base64, the parameters echoed, and `info`, JSON in a string."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato import __version__
from sfumato.metadata import PARAMETERS, parse_infotext, read_texts
from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_lowering import Order
from sfumato.server.dialects.encoded import encode_picture
from sfumato.server.values import Job

COMMON: dict[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "styles": None,
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "sampler_name": None,
    "scheduler": None,
    "batch_size": 1,
    "n_iter": 1,
    "steps": 50,
    "cfg_scale": 7.0,
    "width": None,
    "height": None,
    "restore_faces": None,
    "tiling": None,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "eta": None,
    "denoising_strength": None,
    "s_min_uncond": None,
    "s_churn": None,
    "s_tmax": None,
    "s_tmin": None,
    "s_noise": None,
    "override_settings": None,
    "override_settings_restore_afterwards": True,
    "refiner_checkpoint": None,
    "refiner_switch_at": None,
    "disable_extra_networks": False,
    "firstpass_image": None,
    "comments": None,
    "force_task_id": None,
    "sampler_index": "Euler",
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
    "infotext": None,
}
TXT2IMG: dict[str, Any] = COMMON | {
    "enable_hr": False,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "hr_scale": 2.0,
    "hr_upscaler": None,
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": "",
    "hr_negative_prompt": "",
}
IMG2IMG: dict[str, Any] = COMMON | {
    "init_images": None,
    "resize_mode": 0,
    "image_cfg_scale": None,
    "mask": None,
    "mask_blur_x": 4,
    "mask_blur_y": 4,
    "mask_blur": None,
    "mask_round": True,
    "inpainting_fill": 0,
    "inpaint_full_res": True,
    "inpaint_full_res_padding": 0,
    "inpainting_mask_invert": 0,
    "initial_noise_multiplier": None,
    "latent_mask": None,
    "denoising_strength": 0.75,
    "include_init_images": False,
}
"""The fields of both bodies as version 1.10 has them, with their defaults."""

_BASIC = {"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "Clip skip", "Version", "VAE"}
_BASIC |= {"Denoising strength", "Variation seed", "Variation seed strength"}


def answer(
    job: Job,
    files: Sequence[bytes],
    order: Order,
    body: Mapping[str, Any],
    catalogue: Catalogue,
    *,
    img2img: bool,
    seen: Sequence[bytes] = (),
) -> dict[str, Any]:
    """The answer to txt2img or img2img for a job that has ended, the files of its pictures and of what networks saw."""
    texts = [infotext(file) for file in files]
    sent = [*files, *seen] if body.get("send_images") in (None, True) else []
    return {
        "images": [encode_picture(file) for file in sent],
        "parameters": echo(body, job, img2img=img2img),
        "info": json.dumps(info(job, texts, order, catalogue), ensure_ascii=False),
    }


def echo(body: Mapping[str, Any], job: Job, *, img2img: bool) -> dict[str, Any]:
    """The fields of the body with those that it left out; unknown ones are dropped, start pictures unless asked for."""
    known = IMG2IMG if img2img else TXT2IMG
    parameters = {name: body.get(name, default) for name, default in known.items()}
    parameters |= {side: job.request.get(side) for side in ("width", "height") if parameters[side] is None}
    if img2img and not body.get("include_init_images"):
        parameters |= {"init_images": None, "mask": None}
    return parameters


def info(job: Job, texts: Sequence[str], order: Order, catalogue: Catalogue) -> dict[str, Any]:
    """What A1111 tells about a result. `infotexts` are those of the pictures, one each."""
    request, pictures = job.request, job.pictures
    seeds = [picture.seed for picture in pictures] or [request.get("seed", -1)]
    variation = request.get("variation") or {}
    subseed = variation.get("seed", seeds[0])
    model = next((each for each in catalogue.models if each.name == request.get("model")), None)
    said = parse_infotext(texts[0]).parameters if texts else {}
    count = max(len(pictures), 1)
    resized = request.get("seed_size") or (-1, -1)
    return {
        "prompt": order.prompt,
        "all_prompts": [order.prompt] * count,
        "negative_prompt": order.negative_prompt,
        "all_negative_prompts": [order.negative_prompt] * count,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseed,
        "all_subseeds": [subseed + index for index in range(count)],
        "subseed_strength": variation.get("strength", 0),
        "width": request.get("width"),
        "height": request.get("height"),
        "sampler_name": request.get("sampler"),
        "cfg_scale": request.get("guidance"),
        "steps": request.get("steps"),
        "batch_size": request.get("batch") or 1,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model.name if model else request.get("model"),
        "sd_model_hash": model.hash[:10] if model else None,
        "sd_vae_name": request.get("vae"),
        "sd_vae_hash": None,
        "seed_resize_from_w": resized[0],
        "seed_resize_from_h": resized[1],
        "denoising_strength": request.get("strength"),
        "extra_generation_params": {key: value for key, value in said.items() if key not in _BASIC},
        "index_of_first_image": 0,
        "infotexts": list(texts),
        "styles": list(order.styles),
        "job_timestamp": timestamp(job.created),
        "clip_skip": (request.get("clip_skip") or 0) + 1,
        "is_using_inpainting_conditioning": bool(model and model.inpainting),
        "version": f"sfumato {__version__}",
    }


def timestamp(time: str) -> str:
    """A time in ISO 8601 as A1111 writes one: 20240131235959."""
    return "".join(character for character in time.partition(".")[0] if character.isdigit())[:14]


def infotext(file: bytes) -> str:
    """The infotext in a picture's file."""
    from PIL import Image

    with Image.open(io.BytesIO(file)) as picture:
        return read_texts(picture).get(PARAMETERS, "")
