"""Fields of a request as people write them in tables and on the axes of plots: names, and values as text.

`hires.strength` is a field of a part. A1111's names, such as "CFG Scale", are known too.
"""

import re
from dataclasses import fields
from typing import Any

from sfumato.errors import RequestError
from sfumato.request.checks import nearest
from sfumato.request.request import Request, ranges

ALIASES = {
    "cfg": "guidance",
    "cfg_scale": "guidance",
    "denoising": "strength",
    "denoising_strength": "strength",
    "negative": "negative_prompt",
    "prompt_s_r": "prompt",
    "checkpoint_name": "model",
    "image_cfg_scale": "image_guidance",
    "styles": "style",
    "schedule_type": "spacing",
    "loras": "lora",
    "embeddings": "embedding",
    "var_seed": "variation.seed",
    "var_strength": "variation.strength",
    "hires_steps": "hires.steps",
    "hires_upscaler": "hires.upscaler",
    "hires_sampler": "hires.sampler",
    "refiner_checkpoint": "refiner.model",
    "refiner_switch_at": "refiner.at",
}
WORDS = ("prompt", "negative_prompt")
LISTS = {"lora": "loras", "embedding": "embeddings", "style": "styles"}
RANDOM = -1  # what other programs write for a seed that is to be drawn
SEEDS = ("seed", "variation.seed")
SIZES = ("size", "seed_size", "hires.size")
WHOLE_IN_PARTS = ("seed", "steps", "left", "top", "right", "bottom", "feather")


def field_name(name: str) -> str:
    """The field, or the field of a part, that a name stands for. Raises RequestError for one that is none."""
    words = re.sub(r"\.(?=\s)", "", name.strip().lower())  # "Var. seed"
    plain = re.sub(r"[^a-z0-9.]+", "_", words).strip("_")
    field = ALIASES.get(plain, plain)
    known = [each.name for each in fields(Request) if each.name not in LISTS.values()]
    if field in (*SIZES, *LISTS) or field.partition(".")[0] in known:
        return field
    raise RequestError(f"there is no field {name.strip()!r}; {nearest(field, [*LISTS, 'size', *known])}", name.strip())


def is_number(field: str) -> bool:
    """May the values of a field be numbers?"""
    return field in ranges() or ("." in field and field not in SIZES)


def is_whole(field: str) -> bool:
    """Are the numbers of a field whole ones?"""
    known = ranges().get(field)
    return field.partition(".")[2] in WHOLE_IN_PARTS if known is None else isinstance(known[0], int)


def field_value(field: str, text: str) -> Any:
    """A value of a field from its text; "none" is None, and so is a seed of -1. Raises RequestError for no size."""
    if field in WORDS:
        return text
    if text.lower() in ("none", "off") or (field in SEEDS and text == str(RANDOM)):
        return None
    if field in LISTS:
        return text
    if field in SIZES:
        sides = text.lower().split("x")
        if len(sides) != 2 or not all(side.strip().isdecimal() for side in sides):
            raise RequestError(f"{field} has {text!r}; sizes are width x height, such as 512x768", field)
        return int(sides[0]), int(sides[1])
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float) if is_number(field) else ():
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def put(values: dict[str, Any], field: str, value: Any) -> None:
    """Puts a value that `field_value` gave into the fields of a request."""
    part, dot, name = field.partition(".")
    if field in LISTS:
        listed = [] if value is None else [each for each in str(value).split(";") if each.strip()]
        values[LISTS[field]] = [_item(field, each.strip()) for each in listed]
    elif field == "size":
        values["width"], values["height"] = value or (None, None)
    elif field == "refiner.model" and value is None:
        values.pop("refiner", None)
    elif dot:
        values[part] = {**(values.get(part) or {}), name: value}
        if part == "hires" and name in ("scale", "size"):
            values[part].pop("size" if name == "scale" else "scale", None)
    else:
        values[field] = value


def _item(field: str, text: str) -> str | list[Any]:
    """A style, or a LoRA with its weight or an embedding with its word, from `name:0.5`."""
    if field == "style":
        return text
    name, colon, rest = text.rpartition(":")
    if not colon:
        return [text]
    if field == "embedding":
        return [name, rest]
    try:
        return [name, float(rest)]
    except ValueError:
        return [text]
