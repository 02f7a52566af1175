"""The second pass over enlarged pictures: against diffusers' two pipelines, and what it promises itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SIZE, Pair, recorded, scene

from sfumato import operations as op
from sfumato.errors import RequestError
from sfumato.events import Finished, Progress
from sfumato.generation import generate, stream
from sfumato.images import to_levels, to_pictures, to_pixels
from sfumato.job import prepare
from sfumato.metadata import parse_infotext, save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Hires, Lora, Request
from sfumato.request.together import second_request
from sfumato.upscaling import covering, enlarge, enlarge_latent, middle, resize

PROMPT = "a red house"


def request(**changes: object) -> Request:
    fields = {"prompt": PROMPT, "seed": 11, "steps": 4, "guidance": 5.0, "width": SIZE, "height": SIZE}
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def one(model: Model, **changes: object) -> Image.Image:
    return generate(model, request(**changes), metadata=False)[0]


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def test_the_second_pass_is_diffusers_img2img_of_the_enlarged_latent(pair: Callable[[str], Pair]) -> None:
    both = pair("sd1")
    ours = one(both.ours, hires={"scale": 1.5, "upscaler": "latent_bicubic", "strength": 0.5, "steps": 6})

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(11)

    first = both.theirs(diffusers.StableDiffusionPipeline)
    latent = first(
        PROMPT,
        num_inference_steps=4,
        guidance_scale=5.0,
        width=SIZE,
        height=SIZE,
        generator=seeded(),
        output_type="latent",
    ).images
    larger = torch.nn.functional.interpolate(latent, size=(12, 12), mode="bicubic")
    second = both.theirs(diffusers.StableDiffusionImg2ImgPipeline)
    theirs = second(
        PROMPT, image=larger, strength=0.5, num_inference_steps=6, guidance_scale=5.0, generator=seeded()
    ).images[0]
    assert np.abs(array(ours) - array(theirs)).max() <= 1


def test_a_second_pass_of_no_step_is_the_enlarged_latent(tiny: Model) -> None:
    last = [event for event in stream(tiny, request()) if isinstance(event, Progress)][-1]
    plain = one(tiny)
    picture = one(tiny, hires={"strength": 0.0, "upscaler": "latent_nearest"})
    # DDIM's last level is not 0: what leaves is not the last estimate, but the picture shows it to a few levels
    doubled = last.denoised.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = to_pictures(to_levels(op.decode(tiny, doubled)))[0]
    assert plain.size == (SIZE, SIZE)
    assert picture.size == (2 * SIZE, 2 * SIZE)
    assert np.abs(array(picture) - array(expected)).mean() < 1


def test_pixels_are_enlarged_between_the_passes(tiny: Model) -> None:
    picture = one(tiny, hires={"strength": 0.0, "upscaler": "lanczos"})
    larger = one(tiny).resize((2 * SIZE, 2 * SIZE), Image.Resampling.LANCZOS)
    expected = op.reconstruct(tiny, larger).picture
    assert np.abs(array(picture) - array(expected)).mean() < 1.5  # bytes were rounded between, here


@pytest.mark.parametrize(
    ("rule", "strength", "steps", "runs"),
    [(None, 0.5, 6, 3), ("whole", 0.5, 6, 6), ("a1111", 0.5, 6, 4), ("whole", 0.5, None, 4), (None, 1.0, 5, 5)],
)
def test_the_second_pass_runs_the_steps_of_its_rule_and_progress_counts_all(
    tiny: Model, rule: str | None, strength: float, steps: int | None, runs: int
) -> None:
    asked = request(hires={"strength": strength, "steps": steps, "strength_rule": rule})
    with recorded(tiny.unet) as calls:
        events = list(stream(tiny, asked, metadata=False))
    told = [(event.step, event.steps) for event in events if isinstance(event, Progress)]
    assert len(calls) == 4 + runs
    assert told == [(step, 4 + runs) for step in range(1, 5 + runs)]
    assert isinstance(events[-1], Finished)


def test_the_a1111_rule_lays_the_levels_of_its_hires_fix(tiny: Model) -> None:
    job = prepare(tiny, request(sampler="euler", hires={"strength": 0.7, "steps": 10, "strength_rule": "whole"}))
    assert job.second is not None
    steps = int(10 / min(0.7, 0.999))  # modules/sd_samplers_common.py: setup_img2img_steps
    assert job.second.levels == job.sampling.sigmas(tiny.schedule, steps)[steps - (10 - 1) - 1 :]


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_a_picture_of_a_strict_batch_is_the_one_made_alone(tiny: Model, upscaler: str) -> None:
    hires = {"scale": 1.25, "upscaler": upscaler, "strength": 0.5, "sampler": "euler_a"}
    together = generate(tiny, request(count=2, strict=True, sampler="euler_a", hires=hires), metadata=False)
    for index, picture in enumerate(together):
        assert picture.tobytes() == one(tiny, seed=11 + index, sampler="euler_a", hires=hires).tobytes()


def test_prompts_of_a_batch_keep_to_their_pictures(tiny: Model) -> None:
    prompts = ["a cat", "a house, " * 40, "a tree"]
    hires = {"strength": 0.5, "negative_prompt": "blue"}
    together = generate(tiny, request(prompt=prompts, batch=3, hires=hires, negative_prompt="x, " * 80), metadata=False)
    for index, picture in enumerate(together):
        alone = one(tiny, prompt=prompts[index], seed=11 + index, hires=hires, negative_prompt="x, " * 80)
        assert np.abs(array(picture) - array(alone)).max() <= 2


def test_the_second_pass_has_its_own_words_and_sampler(tiny: Model) -> None:
    base = one(tiny, hires={"strength": 0.5}).tobytes()
    assert one(tiny, hires={"strength": 0.5, "prompt": PROMPT, "sampler": "ddim"}).tobytes() == base
    others = {"prompt": "a cat", "negative_prompt": "a cat", "sampler": "dpmpp_2m", "guidance": 2.0, "steps": 8}
    for name, value in others.items():
        assert one(tiny, hires={"strength": 0.5, name: value}).tobytes() != base, name


def test_an_edited_prompt_goes_on_in_the_second_pass_as_in_the_webui(tiny: Model) -> None:
    """What changed in the first pass stays so; shares from 1 to 2 are of the second."""
    again = {"scale": 1.5, "strength": 0.7, "steps": 4}
    edited = one(tiny, prompt="[a cat:a dog:0.5]", hires=again)
    assert edited.tobytes() == one(tiny, prompt="[a cat:a dog:0.5]", hires={**again, "prompt": "a dog"}).tobytes()
    late = one(tiny, prompt="[a cat:a dog:1.5]", hires=again)
    assert late.tobytes() == one(tiny, prompt="a cat", hires={**again, "prompt": "[a cat:a dog:1.5]"}).tobytes()
    assert late.tobytes() not in (edited.tobytes(), one(tiny, prompt="a cat", hires=again).tobytes())


def test_eta_acts_in_a_second_pass_whose_own_sampler_has_fresh_noise() -> None:
    for sampler, takes_eta, eta in (("euler_a", True, 0.0), ("dpmpp_2m", False, None), (None, False, 0.0)):
        again = second_request(
            request(eta=0.0, strength=1.0, image="x", hires=sampler_of(sampler)), takes_eta=takes_eta
        )
        assert again.eta == eta, sampler


def test_a_second_pass_of_euler_ancestral_without_fresh_noise_is_eulers(tiny: Model) -> None:
    plain = one(tiny, hires={"strength": 0.5, "sampler": "euler"})
    assert one(tiny, eta=0.0, hires={"strength": 0.5, "sampler": "euler_a"}).tobytes() == plain.tobytes()
    assert one(tiny, hires={"strength": 0.5, "sampler": "euler_a"}).tobytes() != plain.tobytes()


def sampler_of(name: str | None) -> dict[str, object]:
    return {"strength": 0.5, "sampler": name}


def test_a_size_between_strides_and_of_another_shape(tiny: Model) -> None:
    for upscaler in ("latent", "bicubic"):
        picture = one(tiny, hires={"size": (100, 60), "upscaler": upscaler, "strength": 0.3})
        assert picture.size == (100, 60)


def test_sdxl_is_told_the_larger_size(pair: Callable[[str], Pair]) -> None:
    assert one(pair("sdxl").ours, hires={"scale": 1.5, "strength": 0.5}).size == (96, 96)


@pytest.mark.parametrize(
    ("hires", "field"),
    [
        ({"scale": 2, "size": (64, 64)}, "hires"),
        ({"scale": 0.5}, "hires.scale"),
        ({"size": (8, 8)}, "hires.size"),
        ({"strength": 1.5}, "hires.strength"),
        ({"strength": None}, "hires.strength"),
        ({"steps": 0}, "hires.steps"),
        ({"upscaler": ""}, "hires.upscaler"),
        ({"upscaler": None}, "hires.upscaler"),
        ({"strength_rule": "half"}, "hires.strength_rule"),
        ({"prompt": 3}, "hires.prompt"),
        ({"factor": 2}, "hires"),
    ],
)
def test_a_wrong_value_is_refused_by_name(hires: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        request(hires=hires)
    assert caught.value.field == field


def test_a_second_pass_that_cannot_be_run_is_refused_before_anything_is(tiny: Model) -> None:
    with recorded(tiny.unet) as calls:
        for hires in ({"sampler": "nonsense"}, {"scale": 8.0}, {"upscaler": "magic"}):
            with pytest.raises(RequestError):
                list(stream(tiny, request(hires=hires, width=2048)))
    assert calls == []


def test_a_lora_of_the_second_prompt_alone_is_refused_and_one_of_both_is_not(tiny: Model) -> None:
    style = Lora("style", 0.8)
    named = replace(tiny, loras=(style,))  # as one that the prompt names is added to it
    with recorded(tiny.unet) as calls:
        for hires in ("x <lora:style:0.8>", "x <lora:style:0.5>", "{x <lora:style:0.8>|y <lora:style:0.8>}"):
            with pytest.raises(RequestError, match=r"hires\.prompt names the LoRA style:0\.[85], which") as caught:
                prepare(tiny, request(hires={"prompt": hires}))
            assert caught.value.field == "hires.prompt"
        with pytest.raises(RequestError, match=r"style:0\.5"):
            prepare(named, request(prompt="a <lora:style:0.8>", hires={"prompt": "x <lora:style:0.5>"}))
    assert calls == []
    same = {"prompt": "x <lora:style:0.8>"}
    assert prepare(named, request(prompt="a <lora:style:0.8>", hires=same)).second is not None
    assert prepare(named, request(loras=[style], hires=same)).second is not None
    assert prepare(tiny, request(dialect="comfy", hires=same)).second is not None  # no LoRA, but words


def test_a1111s_labels_name_upscalers() -> None:
    for label, name in {
        "Latent (bicubic antialiased)": "latent_bicubic_antialiased",
        "Latent (nearest-exact)": "latent_nearest_exact",
        "Latent": "latent",
        "Lanczos": "lanczos",
    }.items():
        assert Hires(upscaler=label).upscaler == name


def test_the_record_and_the_text_tell_of_the_second_pass_and_it_replays(tiny: Model, tmp_path: Path) -> None:
    hires = {
        "scale": 1.5,
        "upscaler": "latent_nearest",
        "strength": 0.5,
        "steps": 5,
        "sampler": "euler",
        "prompt": "a, b",
    }
    asked = request(hires=hires)
    assert Request.from_json(asked.to_json()) == asked
    (picture,) = generate(tiny, asked)
    save(picture, tmp_path / "picture.png")
    told = parse_infotext(picture.info["parameters"]).parameters
    assert told["Size"] == f"{SIZE}x{SIZE}"
    assert told["Denoising strength"] == "0.5"
    assert told["Hires upscale"] == "1.5"
    assert told["Hires steps"] == "5"
    assert told["Hires upscaler"] == "Latent (nearest)"
    assert told["Hires sampler"] == "Euler"
    assert told["Hires prompt"] == "a, b"
    assert replay(tmp_path / "picture.png", model=str(tiny.source)).outcome == "identical"


def test_resizing_pixels_is_exact_where_a_closed_form_is_known() -> None:
    ramp = torch.arange(20.0)[None, None, None, :].expand(1, 2, 20, 20).contiguous() / 20
    doubled = resize(ramp, (20, 40), "nearest")
    assert torch.equal(doubled, ramp.repeat_interleave(2, 3))
    for method in ("bilinear", "bicubic", "lanczos"):
        larger = resize(ramp, (40, 40), method)[0, 0, 20, 10:-10]
        expected = (torch.arange(40.0)[10:-10] - 0.5) / 2 / 20  # centres of pixels
        # Lanczos keeps lines straight only to about 2 % of a pixel's step, which is 0.05 here
        assert torch.allclose(larger, expected, atol=1e-6 if method != "lanczos" else 1.5e-3)
    assert resize(ramp, (20, 20), "lanczos") is ramp


def test_resizing_bytes_is_pillows_own() -> None:
    pixels = to_pixels([scene(30, 20)])
    found = to_pictures(to_levels(resize(pixels, (50, 70), "lanczos")))[0]
    theirs = scene(30, 20).resize((70, 50), Image.Resampling.LANCZOS)
    # Pillow's bytes are rounded and cut off between its two passes, which shows where the blue of the scene leaps
    assert np.abs(array(found) - array(theirs))[..., :2].max() <= 1


def test_what_does_not_fit_is_cropped_around_the_middle() -> None:
    assert covering((8, 8), (10, 20)) == (20, 20)
    assert covering((8, 16), (16, 16)) == (16, 32)
    values = torch.arange(7.0)[None, None, None, :]
    assert middle(values, (1, 4)).flatten().tolist() == [1, 2, 3, 4]
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        enlarge_latent(latent, (10, 20), "latent_nearest_exact"),
        torch.nn.functional.interpolate(latent, size=(20, 20), mode="nearest-exact")[:, :, 5:15],
    )
    assert enlarge(torch.zeros(1, 3, 8, 8), (10, 20), "lanczos").shape == (1, 3, 10, 20)
