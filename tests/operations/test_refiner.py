"""SDXL's base and refiner in one run, and what both are told about sizes, against diffusers with the same weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
from test_generation import request
from test_reference import LEVELS, NEGATIVE, PROMPT, generator, largest, scheduler
from tiny_models import SCHEDULER, SIZE, UNET, Pair, random_weights, recorded, scene, text_encoder

from sfumato.engine import Engine
from sfumato.errors import RequestError
from sfumato.events import Loading
from sfumato.generation import generate
from sfumato.metadata import describe, save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Request
from sfumato.weights.load import load

STEPS = 10


@pytest.fixture(scope="session")
def refiner(pair: Callable[[str], Pair], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny SDXL refiner: the second tower alone, levels of another width, a score in place of a size."""
    base = pair("sdxl").components
    unet: dict[str, Any] = UNET | {
        "use_linear_projection": True,
        "attention_head_dim": (2, 4),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (48, 64),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 5 * 8 + 32,
    }
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(
        unet=random_weights(diffusers.UNet2DConditionModel(**unet), 11),
        vae=base["vae"],
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=text_encoder(4, projection=True, act="gelu"),
        tokenizer_2=base["tokenizer_2"],
        scheduler=diffusers.DDIMScheduler(**SCHEDULER, clip_sample=False, set_alpha_to_one=False),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )
    folder = tmp_path_factory.mktemp("refiner") / "refiner"
    pipeline.save_pretrained(folder)
    return Pair(pipeline.components, load(folder))


def theirs_refining(refiner: Pair, made: Any) -> Any:
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(
        **refiner.components | {"scheduler": made}, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wanted(**changes: Any) -> Request:
    fields = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 5, "steps": STEPS, "guidance": 5.0}
    return Request(**fields | {"width": SIZE, "height": SIZE} | changes)


SIZES = {"original_size": (96, 80), "crops_coords_top_left": (4, 8), "target_size": (72, 56)}
NEGATIVES = {"negative_original_size": (48, 40), "negative_target_size": (24, 32)}


@pytest.mark.parametrize("negative", [False, True])
def test_what_sdxl_is_told_about_sizes_equals_that_of_diffusers(negative: bool, pair: Callable[[str], Pair]) -> None:
    """Theirs are rows before columns, ours a width and a height, a left and a top."""
    theirs = pair("sdxl").theirs(diffusers.StableDiffusionXLPipeline)
    expected = theirs(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        height=SIZE,
        width=SIZE,
        generator=generator(5),
        **SIZES,
        **({**NEGATIVES, "negative_crops_coords_top_left": (2, 1)} if negative else {}),
    ).images[0]
    told: dict[str, Any] = {"original_size": (80, 96), "crop": (8, 4), "target_size": (56, 72)}
    if negative:
        told |= {"negative_original_size": (40, 48), "negative_crop": (1, 2), "negative_target_size": (32, 24)}
    (found,) = generate(pair("sdxl").ours, wanted(**told), metadata=False)
    assert largest(found, expected) <= LEVELS
    assert largest(found, generate(pair("sdxl").ours, wanted(), metadata=False)[0]) > 3


# An ancestral sampler draws its noise in another order there, and the two pipelines forget a multistep history between
@pytest.mark.parametrize("at", [0.5, 0.8])
@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_base_and_refiner_equal_those_of_diffusers(
    name: str, at: float, pair: Callable[[str], Pair], refiner: Pair
) -> None:
    made = scheduler(name, "sdxl")
    settings = {"negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": 5.0}
    latent = (
        pair("sdxl")
        .theirs(diffusers.StableDiffusionXLPipeline, made)(
            PROMPT, **settings, height=SIZE, width=SIZE, denoising_end=at, output_type="latent", generator=generator(5)
        )
        .images
    )
    second = theirs_refining(refiner, scheduler(name, "sdxl"))
    expected = second(
        PROMPT, **settings, image=latent, denoising_start=at, aesthetic_score=7.0, negative_aesthetic_score=1.5
    ).images[0]
    model = replace(pair("sdxl").with_scheduler(made), refiner=refiner.ours)
    with recorded(model.unet) as first_calls, recorded(refiner.ours.unet) as second_calls:
        (found,) = generate(
            model,
            wanted(refiner={"model": "anything", "at": at}, aesthetic_score=7.0, negative_aesthetic_score=1.5),
            metadata=False,
        )
    assert (len(first_calls), len(second_calls)) == (round(at * STEPS), STEPS - round(at * STEPS))
    assert largest(found, expected) <= LEVELS


def test_the_refiner_alone_on_a_picture_equals_that_of_diffusers(refiner: Pair) -> None:
    """The simple form: img2img with the refiner as the model."""
    made = scheduler("ddim", "sdxl")
    expected = theirs_refining(refiner, made)(
        PROMPT,
        image=scene(),
        strength=0.4,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        aesthetic_score=7.0,
        generator=generator(5),
    ).images[0]
    told = wanted(strength=0.4, aesthetic_score=7.0, noise="sequential")
    (found,) = generate(refiner.with_scheduler(made), told, image=scene(), metadata=False)
    assert largest(found, expected) <= LEVELS


@pytest.mark.parametrize(("at", "drawn_by"), [(1.0, "base"), (0.0, "refiner")])
def test_a_switch_at_an_end_leaves_all_to_one_model(
    at: float, drawn_by: str, pair: Callable[[str], Pair], refiner: Pair
) -> None:
    model = replace(pair("sdxl").ours, refiner=refiner.ours)
    (found,) = generate(model, wanted(refiner={"model": "x", "at": at}), metadata=False)
    alone = pair("sdxl").ours if drawn_by == "base" else replace(refiner.ours, sampling=model.sampling)
    assert found.tobytes() == generate(alone, wanted(), metadata=False)[0].tobytes()


def test_a_model_refines_itself_to_the_picture_that_it_draws(tiny: Model) -> None:
    """A hand-over is invisible: also where a sampler remembers earlier steps, or asks between two levels."""
    for sampler in ("dpmpp_2m", "heun", "dpmpp_sde", "pndm"):
        plain = generate(tiny, request(sampler=sampler), metadata=False)[0]
        both = replace(tiny, refiner=tiny)
        found = generate(both, request(sampler=sampler, refiner={"model": "x", "at": 0.5}), metadata=False)[0]
        assert found.tobytes() == plain.tobytes()


def test_a_batch_with_several_prompts_is_refined_picture_by_picture(tiny: Model, pair: Callable[[str], Pair]) -> None:
    other = pair("sd2").ours
    model = replace(tiny, refiner=other)
    told = {"prompt": ["a red house", "two boats"], "refiner": {"model": "x", "at": 0.5}}
    together = generate(model, request(batch=2, **told), metadata=False)
    for index, prompt in enumerate(told["prompt"]):
        (alone,) = generate(model, request(prompt=prompt, seed=11 + index, refiner=told["refiner"]), metadata=False)
        assert largest(together[index], alone) <= 2
        assert largest(alone, generate(tiny, request(prompt=prompt, seed=11 + index), metadata=False)[0]) > 3


def test_an_engine_keeps_a_refiner_beside_its_model_and_the_picture_is_replayed(
    pair: Callable[[str], Pair], refiner: Pair, tmp_path: Path
) -> None:
    names = [str(pair("sdxl").ours.source), str(refiner.ours.source)]
    engine = Engine("cpu", keep=1)
    told = wanted(model=names[0], refiner={"model": names[1], "at": 0.6})
    events = list(engine.run(told))
    assert [event.model for event in events if isinstance(event, Loading)] == names
    assert not [event for event in engine.run(told) if isinstance(event, Loading)]
    save(events[-1].picture, tmp_path / "picture.png")
    found = describe(tmp_path / "picture.png")
    assert found.record is not None
    assert {"unet", "refiner.unet", "refiner.text_encoder"} <= {
        name.replace("text_encoder_2", "text_encoder") for name in found.record["model"]["hashes"]
    }
    assert "Refiner: refiner, Refiner switch at: 0.6" in str(events[-1].picture.info["parameters"])
    assert replay(tmp_path / "picture.png", engine=engine).outcome == "identical"
    events = list(engine.run(wanted(model=names[1])))
    assert not [event for event in events if isinstance(event, Loading)]  # it is the model that was beside


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("sd1", {"original_size": (64, 64)}, "original_size"),
        ("sd1", {"negative_crop": (0, 0)}, "negative_crop"),
        ("sdxl", {"aesthetic_score": 6.0}, "aesthetic_score"),
        ("sdxl", {"refiner": "somewhere"}, "refiner"),
    ],
)
def test_what_no_model_reads_is_refused(
    kind: str, changes: dict[str, Any], field: str, pair: Callable[[str], Pair]
) -> None:
    with recorded(pair(kind).ours.unet) as calls, pytest.raises(RequestError) as caught:
        generate(pair(kind).ours, wanted(**changes), metadata=False)
    assert caught.value.field == field
    assert calls == []


def test_a_refiner_of_other_latents_is_refused(pair: Callable[[str], Pair]) -> None:
    base = pair("sd1").ours
    config = replace(base.autoencoder.config, scaling_factor=0.13025)
    other = replace(base, autoencoder=type(base.autoencoder)(config), name="other")
    with pytest.raises(RequestError, match=r"refiner is other .* whose latents are not those of") as caught:
        generate(replace(base, refiner=other), wanted(refiner="other"), metadata=False)
    assert caught.value.field == "refiner"
    mixed = replace(base, refiner=pair("inpaint").ours)
    with pytest.raises(RequestError, match="one is an inpainting model"):
        generate(mixed, wanted(refiner="other"), metadata=False)
