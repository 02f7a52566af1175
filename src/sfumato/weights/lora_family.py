"""Which family a LoRA was made for, from the widths of its tensors."""

from collections.abc import Mapping

from sfumato.weights.families import FAMILIES
from sfumato.weights.lora_names import TEXT, TEXT_2, UNET, WIDE_TOWER

Widths = Mapping[str, Mapping[str, int]]
"""network -> path of a layer -> how many features go into it."""

CONTEXTS = {768: "sd15", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}  # features of the text that a UNet attends to
TOWERS = {768: "sd15", 1024: "sd2"}  # features of a first text encoder, of a model with no second one
VERSIONS = {"sd_v1": "sd15", "sd_v2": "sd2", "sdxl": "sdxl"}  # how kohya's ss_base_model_version begins


def lora_family(widths: Widths, metadata: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the name of the family that a LoRA looks made for, None if it is none of ours, and what shows it."""
    contexts = {width for path, width in widths.get(UNET, {}).items() if path.endswith(("attn2.to_k", "attn2.to_v"))}
    if len(contexts) == 1:
        width = contexts.pop()
        return CONTEXTS.get(width), f"its UNet attends to {width} text features"
    if TEXT_2 in widths:
        wide = WIDE_TOWER in widths[TEXT_2].values()
        return ("sdxl" if wide else None), "it has a second text encoder"
    towers = {width for path, width in widths.get(TEXT, {}).items() if path.endswith("_proj")}
    stated = metadata.get("ss_base_model_version", "")
    told = next((family for start, family in VERSIONS.items() if stated.startswith(start)), None)
    if told is not None:
        return told, f"its metadata says {stated[:40]!r}"
    if len(towers) == 1:
        width = towers.pop()
        return TOWERS.get(width), f"its text encoder is {width} features wide"
    return None, "its widths are no published model's"


def family_title(family: str | None) -> str:
    """Return how a family is called in a message."""
    return "a model of its own sizes" if family is None else FAMILIES[family].title
