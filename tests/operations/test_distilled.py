"""Models that need few steps, against diffusers with the same weights: LCM with embedded guidance, Lightning, Turbo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from test_reference import LEVELS, PROMPT, generator, largest
from tiny_models import SCHEDULER, SIZE, UNET, Pair, random_weights, recorded

from sfumato.generation import generate
from sfumato.nn.distilled import with_guidance
from sfumato.request import Request
from sfumato.weights.load import load
from sfumato.weights.save import save_folder


@pytest.fixture(scope="session")
def consistency(pair: Callable[[str], Pair], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny LCM whose UNet embeds the guidance scale, as SimianLuo/LCM_Dreamshaper_v7's does."""
    parts = {name: pair("sd1").components[name] for name in ("vae", "text_encoder", "tokenizer")}
    parts["unet"] = random_weights(diffusers.UNet2DConditionModel(**UNET, time_cond_proj_dim=16), 21)
    parts["scheduler"] = diffusers.LCMScheduler(**SCHEDULER, clip_sample=False, set_alpha_to_one=True)
    pipeline = diffusers.LatentConsistencyModelPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    folder = tmp_path_factory.mktemp("lcm") / "lcm"
    pipeline.save_pretrained(folder)
    return Pair({**parts, "safety_checker": None, "feature_extractor": None}, load(folder))


def wanted(**changes: Any) -> Request:
    fields = {"prompt": PROMPT, "seed": 5, "width": SIZE, "height": SIZE, "noise": "sequential"}
    return Request(**fields | changes)


@pytest.mark.parametrize("guidance", [1.0, 8.5])
@pytest.mark.parametrize("steps", [1, 4])
def test_an_lcm_with_embedded_guidance_equals_that_of_diffusers(steps: int, guidance: float, consistency: Pair) -> None:
    theirs = diffusers.LatentConsistencyModelPipeline(**consistency.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=SIZE,
        width=SIZE,
        generator=generator(5),
    ).images[0]
    with recorded(consistency.ours.unet) as calls, recorded(consistency.ours.autoencoder.decoder) as decoded:
        (found,) = generate(consistency.ours, wanted(steps=steps, guidance=guidance), metadata=False)
    assert (calls, decoded) == ([1] * steps, [1])  # one branch, on the single batch
    assert largest(found, expected) <= LEVELS


def test_embedded_guidance_matters_and_one_branch_is_asked(consistency: Pair) -> None:
    model = consistency.ours
    low, high = (
        generate(model, wanted(steps=4, guidance=scale, noise="keyed"), metadata=False)[0] for scale in (1.0, 8.5)
    )
    assert largest(low, high) > 3
    other = generate(model, wanted(steps=4, guidance=8.5, negative_prompt="blurry", noise="keyed"), metadata=False)[0]
    assert other.tobytes() == high.tobytes()


@torch.no_grad()
def test_the_embedding_of_guidance_is_that_of_diffusers(consistency: Pair) -> None:
    theirs = diffusers.LatentConsistencyModelPipeline(**consistency.components, requires_safety_checker=False)
    expected = theirs.get_guidance_scale_embedding(torch.tensor([6.5]), embedding_dim=16)
    found = with_guidance(consistency.ours.unet, 7.5).time_embedding.condition
    assert torch.allclose(found, expected, atol=1e-3)  # angles of up to 6500 in float32
    assert consistency.ours.unet.time_embedding.condition is None


def test_an_lcm_is_saved_and_loaded(consistency: Pair, tmp_path: Path) -> None:
    expected = generate(consistency.ours, wanted(steps=2, guidance=4.0), metadata=False)[0].tobytes()
    again = load(save_folder(consistency.ours, tmp_path / "folder"))
    assert generate(again, wanted(steps=2, guidance=4.0), metadata=False)[0].tobytes() == expected


LIGHTNING = {"timestep_spacing": "trailing", "prediction_type": "epsilon"}


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_trailing_euler_without_guidance_equals_that_of_diffusers(
    kind: str, steps: int, pair: Callable[[str], Pair]
) -> None:
    """How Lightning, Turbo and Hyper are sampled."""
    pipeline = {"sd1": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}[kind]
    made = diffusers.EulerDiscreteScheduler(**SCHEDULER, **LIGHTNING)
    expected = (
        pair(kind)
        .theirs(pipeline, made)(
            PROMPT, num_inference_steps=steps, guidance_scale=0.0, height=SIZE, width=SIZE, generator=generator(5)
        )
        .images[0]
    )
    model = pair(kind).with_scheduler(made)
    with recorded(model.unet) as calls:
        (found,) = generate(model, wanted(steps=steps, guidance=1.0), metadata=False)
    assert calls == [1] * steps
    assert largest(found, expected) <= LEVELS


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_sgm_uniform_is_the_same_as_trailing_for_steps_that_divide_the_timesteps(
    steps: int, pair: Callable[[str], Pair]
) -> None:
    """What A1111 and ComfyUI call it; their first level is the last timestep, their steps are even."""
    model = pair("sd1").ours
    sampling = [
        replace(model.sampling, sampler="euler", spacing=spacing, end="zero").sigmas(model.schedule, steps)
        for spacing in ("sgm_uniform", "trailing")
    ]
    sigma_max, sigma_min = model.schedule.sigmas[-1], model.schedule.sigmas[0]
    last, first = model.schedule.timestep(sigma_max), model.schedule.timestep(sigma_min)
    even = [model.schedule.sigma(last + (first - last) * step / steps) for step in range(steps)]
    assert sampling[0] == pytest.approx([*even, 0.0], rel=1e-9)  # linspace(last, first, steps + 1)[:-1]
    assert sampling[0] == pytest.approx(sampling[1], rel=0.02)  # which counts 1000 / n, not 999 / n


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_consistency_presets_run_on_any_model_in_few_steps(name: str, pair: Callable[[str], Pair]) -> None:
    (found,) = generate(pair("sd1").ours, wanted(steps=4, guidance=1.0, sampler=name), metadata=False)
    assert found.size == (SIZE, SIZE)
