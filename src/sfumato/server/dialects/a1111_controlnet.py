"""The ControlNet extension's units as controls of a request, and what its lists tell."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_fields import Fields, refuse

# The extension's modules that need no network -> our preprocessors, and which of theirs its thresholds a and b are
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "none": ("none", ()),
    "canny": ("canny", ("low", "high")),
    "scribble_xdog": ("scribble", ("threshold",)),
    "blur_gaussian": ("blur", ("sigma",)),
    "tile_resample": ("tile", ("factor",)),
    "t2ia_color_grid": ("colour", ()),
    "shuffle": ("shuffle", ()),
    "recolor_luminance": ("luminance", ("gamma",)),
    "threshold": ("threshold", ("level",)),
    "binary": ("binary", ()),
    "invert": ("invert", ()),
    "inpaint": ("inpaint", ()),
    "inpaint_only": ("inpaint", ()),
    "inpaint_global_harmonious": ("inpaint", ()),
}
IP_ADAPTER = "ip-adapter"  # the beginning of the modules that show a picture in place of words
IP_MODULES = ("ip-adapter-auto", "ip-adapter_clip_sd15", "ip-adapter_clip_h", "ip-adapter_clip_g")
DETAILS: dict[str, list[dict[str, Any]]] = {
    "canny": [
        {"name": "Low Threshold", "value": 100, "min": 1, "max": 255},
        {"name": "High Threshold", "value": 200, "min": 1, "max": 255},
    ],
    "scribble_xdog": [{"name": "XDoG Threshold", "value": 32, "min": 1, "max": 64}],
    "blur_gaussian": [{"name": "Sigma", "value": 9, "min": 0.01, "max": 64}],
    "tile_resample": [{"name": "Down Sampling Rate", "value": 1, "min": 1, "max": 8}],
    "recolor_luminance": [{"name": "Gamma Correction", "value": 1, "min": 0.1, "max": 2}],
    "threshold": [{"name": "Binarization Threshold", "value": 127, "min": 0, "max": 255}],
}
MODES = {"balanced": "balanced", "my prompt is more important": "prompt", "controlnet is more important": "control"}
RESIZES = {
    "just resize": "stretch",
    "crop and resize": "crop",
    "scale to fit (inner fit)": "crop",
    "resize and fill": "fill",
    "envelope (outer fit)": "fill",
}
UNION = {  # its union_control_type -> what a ControlNet Union is told
    "openpose": "openpose",
    "depth": "depth",
    "soft edge": "soft_edge",
    "hard edge": "line",
    "normal map": "normal",
    "segmentation": "segment",
    "tile": "tile",
    "inpaint": "repaint",
}
TYPES = (
    "All",
    "Canny",
    "Scribble",
    "SoftEdge",
    "Tile",
    "Inpaint",
    "Shuffle",
    "Depth",
    "OpenPose",
    "Lineart",
    "IP-Adapter",
)

_HASH = re.compile(r"\s*\[[0-9a-f]+\]\s*$")


def units_of(args: Sequence[Any]) -> list[dict[str, Any]]:
    """The enabled units of the script's arguments."""
    units = []
    for place, unit in enumerate(args):
        if unit is None or unit is False:
            continue
        if not isinstance(unit, dict):
            raise refuse("alwayson_scripts", f"has ControlNet unit {place}, which must be an object")
        if Fields(unit).flag("enabled", True):
            units.append(unit)
    return units


def unit_picture(unit: Mapping[str, Any]) -> str | None:
    """The picture of a unit as base64; None where the start picture is meant."""
    picture = unit.get("image") or unit.get("input_image")
    if isinstance(picture, dict):
        if picture.get("mask"):
            raise refuse("alwayson_scripts", "has a ControlNet unit with a mask; give the mask of img2img")
        picture = picture.get("image")
    if unit.get("mask") or unit.get("mask_image"):
        raise refuse("alwayson_scripts", "has a ControlNet unit with a mask; give the mask of img2img")
    return picture or None


def control_fields(
    units: Sequence[Mapping[str, Any]], pictures: Mapping[str, str], catalogue: Catalogue
) -> dict[str, list[dict[str, Any]]]:
    """The controls of a request, and its image prompts: units whose module is an IP-Adapter's.

    `pictures` has the ids of the units' own pictures under "control 0", ... Raises Problem 422 for a unit that asks for
    what is not there.
    """
    values: dict[str, list[dict[str, Any]]] = {}
    for place, unit in enumerate(units):
        fields, picture = Fields(unit), pictures.get(f"control {place}")
        if fields.text("module").lower().startswith(IP_ADAPTER):
            values.setdefault("image_prompts", []).append(_image_prompt(fields, picture, catalogue))
        else:
            values.setdefault("controls", []).append(_control(fields, picture, catalogue))
    return values


def _image_prompt(unit: Fields, picture: str | None, catalogue: Catalogue) -> dict[str, Any]:
    if picture is None:
        raise refuse("image", "is missing; an IP-Adapter's unit needs a picture of its own")
    return {
        "model": _model(unit.text("model", "None"), catalogue),
        "images": [picture],
        "weight": unit.number("weight", 1.0),
        "start": unit.number("guidance_start", 0.0),
        "end": unit.number("guidance_end", 1.0),
    }


def _control(unit: Fields, picture: str | None, catalogue: Catalogue) -> dict[str, Any]:
    preprocessor, options = preprocessor_of(unit)
    control = {
        "model": _model(unit.text("model", "None"), catalogue),
        "preprocessor": preprocessor,
        "options": options,
        "weight": unit.number("weight", 1.0),
        "start": unit.number("guidance_start", 0.0),
        "end": unit.number("guidance_end", 1.0),
        "mode": _word(unit, "control_mode", MODES, ("balanced", "prompt", "control")),
        "resize": _word(unit, "resize_mode", RESIZES, ("stretch", "crop", "fill"), default="crop and resize"),
    }
    kind = unit.text("union_control_type", "Unknown").lower()
    if kind != "unknown":
        if kind not in UNION:
            raise refuse("union_control_type", f"is {kind!r}; there are Unknown, {', '.join(UNION)}")
        control["task"] = UNION[kind]
    return control if picture is None else control | {"image": picture}


def preprocessor_of(unit: Fields, prefix: str = "") -> tuple[str, dict[str, float]]:
    """The preprocessor of a module and its options; `prefix` is before the names of the fields. Raises Problem 422."""
    module = unit.text(f"{prefix}module", "none").lower().partition(" (")[0] or "none"
    if module not in MODULES:
        raise refuse(f"{prefix}module", f"is {module!r}; there are {', '.join((*MODULES, *IP_MODULES))}")
    preprocessor, thresholds = MODULES[module]
    names = (f"{prefix}threshold_a", f"{prefix}threshold_b")
    given = {option: unit.number(name, -1.0) for option, name in zip(thresholds, names, strict=False)}
    return preprocessor, {option: value for option, value in given.items() if value > 0}


def _model(name: str, catalogue: Catalogue) -> str:
    plain = _HASH.sub("", name).strip().lower()
    for known, place in catalogue.controls.items():
        if plain in (known.lower(), known.lower().removesuffix(".safetensors")):
            return place
    raise refuse("model", f"is {name!r}; the control networks are {', '.join(catalogue.controls) or '(none)'}")


def _word(
    unit: Fields, name: str, words: Mapping[str, str], numbers: Sequence[str], *, default: str = "balanced"
) -> str:
    value = unit.body.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(numbers):
        return numbers[value]
    found = words.get(str(default if value is None else value).lower())
    if found is None:
        raise refuse(name, f"is {value!r}; it must be one of {', '.join(words)}")
    return found


def model_list(catalogue: Catalogue) -> dict[str, Any]:
    """`/controlnet/model_list`."""
    return {"model_list": list(catalogue.controls)}


def module_list() -> dict[str, Any]:
    """`/controlnet/module_list`."""
    return {
        "module_list": [*MODULES, *IP_MODULES],
        "module_detail": {
            name: {"model_free": False, "sliders": [{"step": 1, **each} for each in DETAILS.get(name, [])]}
            for name in (*MODULES, *IP_MODULES)
        },
    }


def control_types(catalogue: Catalogue) -> dict[str, Any]:
    """`/controlnet/control_types`: which modules and models belong together, by the words in their names."""
    types = {}
    for kind in TYPES:
        words = [kind.lower()] if kind != "All" else [""]
        modules = [name for name in (*MODULES, *IP_MODULES) if any(word in name for word in words)]
        models = [name for name in catalogue.controls if any(word in name.lower() for word in words)]
        types[kind] = {
            "module_list": ["none", *(name for name in modules if name != "none")],
            "model_list": ["None", *models],
            "default_option": next((name for name in modules if name != "none" and kind != "All"), "none"),
            "default_model": models[0] if models and kind != "All" else "None",
        }
    return {"control_types": types}
