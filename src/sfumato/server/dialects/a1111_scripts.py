"""A1111's always-on scripts that have a counterpart here: ControlNet, Self Attention Guidance and Soft Inpainting."""

from collections.abc import Mapping
from typing import Any

from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_controlnet import control_fields, units_of
from sfumato.server.dialects.a1111_fields import Fields, refuse

CONTROLNET, SAG, SOFT = "controlnet", "self attention guidance", "soft inpainting"
# Its arguments, and what they are where a body has fewer.
SOFT_FIELDS = {
    "schedule_bias": 1.0,
    "preservation_strength": 0.5,
    "transition_contrast_boost": 4.0,
    "mask_influence": 0.0,
    "difference_threshold": 0.5,
    "difference_contrast": 2.0,
}
# A1111's own, whose fields a body has beside them, and the extension that fills in __names__, as is done here anyway
HARMLESS = ("extra options", "seed", "sampler", "comments", "simple wildcards")
# webuiapi sends ControlNet's defaults where it finds the second name
LISTED = (CONTROLNET, "controlnet m2m", SAG, SOFT)


def scripts_of(body: Fields) -> dict[str, list[Any]]:
    """The arguments of the scripts by name, in lower case. Raises Problem 422 for one that is not there, as A1111."""
    found = {}
    for name, script in body.object("alwayson_scripts").items():
        arguments = script.get("args", []) if isinstance(script, dict) else script
        if not isinstance(arguments, list):
            raise refuse("alwayson_scripts", f"has {name!r}; it must be an object with a list of args")
        known = str(name).strip().lower()
        if known not in (*LISTED, *HARMLESS):
            raise refuse("alwayson_scripts", f": always on script {name} not found; there are {', '.join(LISTED)}")
        found[known] = arguments
    return found


def script_fields(
    scripts: Mapping[str, list[Any]], pictures: Mapping[str, str], catalogue: Catalogue
) -> dict[str, Any]:
    """The fields of a request that the scripts ask for."""
    values: dict[str, Any] = {}
    values |= control_fields(units_of(scripts.get(CONTROLNET, [])), pictures, catalogue)
    enabled, scale, *_ = [*scripts.get(SAG, []), False, 0.75][:2] if scripts.get(SAG) else (False, 0.0)
    if enabled is True:
        values["self_attention_guidance"] = {"scale": scale}
    enabled, *numbers = scripts.get(SOFT) or [False]
    if enabled is True and "mask" in pictures:
        values["soft_inpainting"] = {**SOFT_FIELDS, **dict(zip(SOFT_FIELDS, numbers, strict=False))}
    return values
