"""Guidance by attention, FreeU and their like on whole pictures: as diffusers draws them, off unless asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from diffusers.pipelines.deprecated.stable_diffusion_sag.pipeline_stable_diffusion_sag import (
    StableDiffusionSAGPipeline,
)
from PIL import Image
from test_generation import array, one, request
from test_reference import LEVELS, NEGATIVE, PROMPT, generator, largest, scheduler
from tiny_models import SIZE, Pair, recorded

from sfumato.engine import Engine
from sfumato.errors import RequestError
from sfumato.generation import generate
from sfumato.metadata import save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Request

STEPS = 10
SETTINGS = {"num_inference_steps": STEPS, "negative_prompt": NEGATIVE, "height": SIZE, "width": SIZE}


def ours(model: Model, guidance: float, **changes: Any) -> Image.Image:
    drawn = Request(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        seed=5,
        steps=STEPS,
        guidance=guidance,
        height=SIZE,
        width=SIZE,
        **changes,
    )
    return generate(model, drawn, metadata=False)[0]


PAG = {"sd1": diffusers.StableDiffusionPAGPipeline, "sdxl": diffusers.StableDiffusionXLPAGPipeline}


@pytest.mark.parametrize(("guidance", "rescale"), [(5.0, 0.0), (5.0, 0.7), (1.0, 0.0)])
@pytest.mark.parametrize("kind", PAG)
def test_perturbed_attention_guidance_equals_that_of_diffusers(
    kind: str, guidance: float, rescale: float, pair: Callable[[str], Pair]
) -> None:
    made = scheduler("ddim", kind)
    theirs = pair(kind).theirs(PAG[kind], made)
    theirs.set_pag_applied_layers(["mid"])
    before = theirs.unet.attn_processors
    expected = theirs(
        PROMPT,
        **SETTINGS,
        guidance_scale=guidance,
        guidance_rescale=rescale,
        pag_scale=2.0,
        pag_adaptive_scale=0.001,
        generator=generator(5),
    ).images[0]
    theirs.unet.set_attn_processor(before)
    model = pair(kind).with_scheduler(made)
    part = {"scale": 2.0, "adaptive": 0.001}
    found = ours(model, guidance, guidance_rescale=rescale, perturbed_attention=part)
    assert largest(found, expected) <= LEVELS
    assert largest(found, ours(model, guidance, guidance_rescale=rescale)) > 3


@pytest.mark.parametrize("guidance", [5.0, 1.0])
@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_self_attention_guidance_equals_that_of_diffusers(
    kind: str, guidance: float, pair: Callable[[str], Pair]
) -> None:
    made = scheduler("ddim", kind)
    components = pair(kind).components
    theirs = pair(kind).theirs(StableDiffusionSAGPipeline, made)
    heads = components["unet"].config.attention_head_dim
    if isinstance(heads, tuple):  # which the pipeline knows as a list only, as it is in a file
        components["unet"].register_to_config(attention_head_dim=list(heads))
    expected = theirs(PROMPT, **SETTINGS, guidance_scale=guidance, sag_scale=0.9, generator=generator(5)).images[0]
    model = pair(kind).with_scheduler(made)
    found = ours(model, guidance, self_attention_guidance={"scale": 0.9})
    assert largest(found, expected) <= LEVELS
    assert largest(found, ours(model, guidance)) > 3


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_picture_with_freeu_equals_that_of_diffusers(kind: str, pair: Callable[[str], Pair]) -> None:
    kinds = {"sd1": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}
    made = scheduler("euler", kind)
    theirs = pair(kind).theirs(kinds[kind], made)
    theirs.enable_freeu(b1=1.2, b2=1.3, s1=0.8, s2=0.3)
    expected = theirs(PROMPT, **SETTINGS, guidance_scale=5.0, generator=generator(5)).images[0]
    theirs.disable_freeu()
    model = pair(kind).with_scheduler(made)
    found = ours(model, 5.0, freeu={"b1": 1.2, "b2": 1.3, "s1": 0.8, "s2": 0.3})
    assert largest(found, expected) <= LEVELS
    assert largest(found, ours(model, 5.0)) > 3


PARTS: dict[str, dict[str, Any]] = {
    "tiling": {"tiling": "both"},
    "freeu": {"freeu": True},
    "perturbed attention": {"perturbed_attention": True},
    "self-attention": {"self_attention_guidance": True},
    "apg": {"apg": {"momentum": -0.5, "threshold": 5.0}},
    "dynamic thresholding": {"dynamic_thresholding": 3.0},
    "CFG++": {"sampler": "ddim_cfg_pp"},
    "CFG++ of second order": {"sampler": "dpmpp_2m_cfg_pp"},
}
NOTHING: dict[str, dict[str, Any]] = {
    "freeu": {"freeu": {"b1": 1, "b2": 1, "s1": 1, "s2": 1}},
    "perturbed attention": {"perturbed_attention": 0.0},
    "self-attention": {"self_attention_guidance": 0.0},
    "apg": {"apg": {"eta": 1, "threshold": 0, "momentum": 0}},
    "dynamic thresholding": {"dynamic_thresholding": {"mimic_scale": 5.0}},
    "phi": {"dynamic_thresholding": {"mimic_scale": 1.0, "phi": 0.0}},
}


@pytest.mark.parametrize("part", NOTHING)
def test_a_part_that_does_nothing_changes_nothing(part: str, tiny: Model) -> None:
    """To a level of 255: what is added is 0, or the same in another order."""
    assert largest(one(tiny, **NOTHING[part]), one(tiny)) <= 1


@pytest.mark.parametrize("part", PARTS)
def test_a_part_changes_the_picture_and_leaves_the_model_as_it_was(part: str, tiny: Model) -> None:
    before = one(tiny)
    assert largest(one(tiny, **PARTS[part]), before) > 3
    assert one(tiny).tobytes() == before.tobytes()


@pytest.mark.parametrize("part", PARTS)
def test_a_picture_of_a_batch_is_the_picture_alone(part: str, tiny: Model) -> None:
    together = generate(tiny, request(count=3, batch=3, **PARTS[part]), metadata=False)
    strict = generate(tiny, request(count=3, strict=True, **PARTS[part]), metadata=False)
    for index in range(3):
        alone = one(tiny, seed=11 + index, **PARTS[part])
        assert strict[index].tobytes() == alone.tobytes()
        assert largest(together[index], alone) <= 2


@pytest.mark.parametrize("part", PARTS)
def test_a_picture_with_a_part_is_replayed_identically(part: str, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    model = pair("sd1").ours
    (picture,) = generate(model, request(model=str(model.source), **PARTS[part]))
    save(picture, tmp_path / "picture.png")
    verdict = replay(tmp_path / "picture.png", engine=Engine("cpu"))
    assert verdict.outcome == "identical", verdict.message


def test_guidance_of_one_asks_the_prompt_alone_even_with_other_guides(tiny: Model) -> None:
    with recorded(tiny.unet) as calls:
        one(tiny, guidance=1.0, apg=True)
    assert calls == [1] * 4
    assert one(tiny, guidance=1.0, apg=True).tobytes() == one(tiny, guidance=1.0).tobytes()


def test_outside_of_the_interval_the_prompt_alone_is_asked(tiny: Model) -> None:
    every = {"perturbed_attention": True, "self_attention_guidance": True, "apg": True, "guidance_rescale": 0.7}
    found = one(tiny, guidance_interval=(1.0, 1.0), **every)
    assert found.tobytes() == one(tiny, guidance=1.0).tobytes()


def test_all_parts_work_together_and_in_inpainting(tiny: Model) -> None:
    every: dict[str, Any] = {"tiling": "x", "freeu": True, "perturbed_attention": True, "self_attention_guidance": True}
    picture = one(tiny, apg=True, guidance_rescale=0.5, sampler="heun", **every)
    assert array(picture).std() > 10
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (16, 16, 48, 48))
    edited = one(tiny, image=picture, mask=mask, dynamic_thresholding=4, **every)
    kept = np.asarray(mask) == 0
    assert np.array_equal(array(edited)[kept], array(picture)[kept])
    assert not np.array_equal(array(edited), array(picture))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"perturbed_attention": {"layers": ["mid", "nose"]}}, "perturbed_attention.layers"),
        ({"tiling": "x", "width": SIZE + 8}, "width"),
        ({"tiling": "both", "height": SIZE - 8}, "height"),
        ({"self_attention_guidance": True, "height": 32}, "self_attention_guidance"),
    ],
)
def test_what_the_model_or_the_size_does_not_allow_is_refused_early(
    changes: dict[str, Any], field: str, tiny: Model
) -> None:
    with recorded(tiny.unet) as calls, pytest.raises(RequestError) as caught:
        one(tiny, **changes)
    assert caught.value.field == field
    assert calls == []
