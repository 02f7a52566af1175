"""A request that cannot work is refused, by the name of its field, before a weight is read."""

from dataclasses import replace
from typing import Any

import pytest

from sfumato.admission import admit
from sfumato.errors import RequestError
from sfumato.request import Defaults, Request
from sfumato.request.traits import Sampled, Traits
from traits import SD1

SDXL = replace(SD1, name="xl", title="SDXL", ids=6, scale=0.13025)
REFINER = replace(SDXL, name="r", title="SDXL refiner", ids=5)
WAYS = {
    None: Sampled("euler", eta=True, plus_plus=False, spacing="leading", laid="timesteps"),
    "dpmpp_2m": Sampled("dpmpp_2m", eta=False, plus_plus=False, spacing="linspace", laid="timesteps"),
    "ddim_cfg_pp": Sampled("euler", eta=True, plus_plus=True, spacing="leading", laid="timesteps"),
    "dpm2": Sampled("dpm2", eta=True, plus_plus=False, spacing="linspace", laid="timesteps", more=1),
    "dpmpp_2m_karras": Sampled("dpmpp_2m", eta=False, plus_plus=False, spacing="karras", laid="sigma"),
    "EulerDiscreteScheduler": Sampled("euler", True, False, "karras", "sigma", bounded=True),
}


def way(sampler: str | None, spacing: str | None) -> Sampled:
    return WAYS[sampler] if spacing is None else replace(WAYS[sampler], spacing=spacing, laid="sigma")


PICTURES = {"image": "sha256:a", "mask": "sha256:b"}
ALONE = "a <lora:ink:0.5>"


def ask(fields: dict[str, Any], traits: Traits = SD1, refiner: Traits | None = None) -> Request:
    request = Request(**{"prompt": "x", "seed": 1, **fields})
    defaults = Defaults(name=traits.name, size=512, steps=20, guidance=7.5, sampler=None, instructed=traits.instructed)
    start = None if request.image is None else (512, 512)
    return admit(request, defaults, traits, way, start=start, mask=request.mask is not None, refiner=refiner)


WRONG: list[tuple[dict[str, Any], Traits, str]] = [
    ({"eta": 0.5, "sampler": "dpmpp_2m"}, SD1, "eta"),
    ({"steps": 999, "sampler": "dpm2"}, replace(SD1, timesteps=999), "steps"),
    ({"steps": 1000}, replace(SD1, timesteps=999), "steps"),
    ({"steps": 1000, "sampler": "EulerDiscreteScheduler"}, replace(SD1, timesteps=999), "steps"),
    ({"steps": 60, "image": "sha256:a", "strength": 0.05, "strength_rule": "whole"}, SD1, "steps"),
    ({"steps": 5, "hires": {"scale": 2, "steps": 101, "strength_rule": "whole", "strength": 0.1}}, SD1, "steps"),
    ({"mask_blur": 2}, SD1, "mask_blur"),
    ({"strength": 0.5}, SD1, "strength"),
    ({"controls": [{"model": "canny"}]}, SD1, "controls"),
    ({"controls": [{"model": "c", "image": "sha256:a", "preprocessor": "inpaint"}]}, SD1, "controls"),
    ({"windows": True, "regions": [{"prompt": "a", "area": (0, 0, 0.5, 1)}]}, SD1, "windows"),
    ({"windows": True, "image": "sha256:a"}, replace(SD1, instructed=True), "windows"),
    ({"windows": True}, replace(SD1, inpainting=True), "windows"),
    ({"image_guidance": 2, "image": "sha256:a"}, SD1, "image_guidance"),
    ({}, replace(SD1, instructed=True), "image"),
    ({"apg": True, "image": "sha256:a"}, replace(SD1, instructed=True), "apg"),
    ({"sampler": "ddim_cfg_pp", "image": "sha256:a"}, replace(SD1, instructed=True), "sampler"),
    ({"original_size": (512, 512)}, SD1, "original_size"),
    ({"target_size": (512, 512)}, REFINER, "target_size"),
    ({"aesthetic_score": 5}, SDXL, "aesthetic_score"),
    ({"clip_skip": 12}, SD1, "clip_skip"),
    ({"tiling": "x", "width": 520}, SD1, "width"),
    ({"tiling": "both", "height": 72}, SD1, "height"),
    ({"perturbed_attention": {"layers": ["nose"]}}, SD1, "perturbed_attention.layers"),
    ({"self_attention_guidance": True, "height": 32}, SD1, "self_attention_guidance"),
    ({"refiner": "r"}, SD1, "refiner"),
    ({"refiner": "r", **PICTURES}, replace(SDXL, inpainting=True), "refiner"),
    ({"masking": "network", **PICTURES}, SD1, "masking"),
    ({"masking": "network", "differential": True, **PICTURES}, replace(SD1, companion=True), "masking"),
    ({"masking": "blend", **PICTURES}, replace(SD1, inpainting=True), "masking"),
    ({"differential": True, **PICTURES}, replace(SD1, inpainting=True), "differential"),
    ({"hires": {"scale": 8}, "width": 2048}, SD1, "hires"),
    ({"hires": {"scale": 2, "prompt": ALONE}}, SD1, "hires.prompt"),
    ({"hires": {"scale": 2, "prompt": "(x:1.2.3)"}}, SD1, "prompt"),
    ({"hires": {"scale": 2, "sampler": "dpmpp_2m"}, "tiling": "x", "width": 96}, SD1, "width"),
    ({"prompt": "(x:1.2.3)"}, SD1, "prompt"),
    ({"prompt": ("x", "(y:1.2.3)"), "count": 2}, SD1, "prompt"),
    ({"negative_prompt": "(x:1.2.3)"}, SD1, "prompt"),
    ({"prompt": "[a:(x:1.2.3):0.5]"}, SD1, "prompt"),
    ({"prompt": "a AND b :99999"}, SD1, "prompt"),
    ({"prompt": "<hypernet:x:1>"}, SD1, "prompt"),
    ({"prompt": '("a", "b").blend(1, -1)', "dialect": "compel"}, SD1, "prompt"),
    ({"self_attention_guidance": True}, replace(SD1, layers=SD1.layers[:1]), "self_attention_guidance"),
    ({"prompt": "__there_is_no_such_wildcard__"}, SD1, "prompt"),
    ({"styles": ["there is no such style"]}, SD1, "styles"),
    ({"regions": [{"prompt": "(x:1.2.3)", "area": (0, 0, 0.5, 1)}]}, SD1, "prompt"),
]


@pytest.mark.parametrize(("fields", "traits", "field"), WRONG)
def test_what_cannot_work_is_refused_by_the_name_of_its_field(
    fields: dict[str, Any], traits: Traits, field: str
) -> None:
    with pytest.raises(RequestError) as caught:
        ask(fields, traits, REFINER if "refiner" in fields else None)
    assert caught.value.field == field, str(caught.value)


@pytest.mark.parametrize(
    ("fields", "traits"),
    [
        ({}, SD1),
        ({"eta": 0.5}, SD1),
        ({"tiling": "both"}, SD1),
        ({"perturbed_attention": {"layers": ["mid", "down"]}}, SD1),
        ({"refiner": "r", "original_size": (512, 512), "aesthetic_score": 5}, SDXL),
        ({"hires": {"scale": 2, "prompt": ALONE}, "prompt": ALONE}, SD1),
        ({"hires": {"scale": 2, "sampler": "dpmpp_2m"}, "eta": 0.5}, SD1),
        ({"prompt": "[a:(x:1.2):0.5] AND b :0.5 [c|d]", "negative_prompt": "at 12:30"}, SD1),
        ({"prompt": "(x:1.2.3)", "dialect": "plain"}, SD1),
        ({"masking": "network", **PICTURES}, replace(SD1, companion=True)),
        ({"masking": "network", **PICTURES}, replace(SD1, inpainting=True)),
    ],
)
def test_what_can_work_is_not(fields: dict[str, Any], traits: Traits) -> None:
    resolved = ask(fields, traits, REFINER if "refiner" in fields else None)
    assert (resolved.width, resolved.steps) == (512, 20)


def test_a_companion_or_what_needs_blending_says_how_what_is_masked_is_drawn() -> None:
    able = replace(SD1, companion=True)
    assert ask(PICTURES, able).masking == "network"
    assert ask({**PICTURES, "soft_inpainting": True}, able).masking == "blend"
    assert ask(PICTURES, SD1).masking is None


def test_an_instructed_model_begins_with_noise_and_sees_the_picture() -> None:
    resolved = ask({"image": "sha256:a"}, replace(SD1, instructed=True))
    assert (resolved.strength, resolved.image_guidance) == (1.0, 1.5)


def test_a_long_prompt_of_many_steps_is_not_read_again_for_each() -> None:
    ask({"prompt": "[a|b] " * 20_000, "steps": 1000})
