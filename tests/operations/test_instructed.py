"""InstructPix2Pix: the same edits as diffusers' pipeline makes, and what a model of its kind refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from tiny_models import SIZE, Pair, recorded, scene

from sfumato.errors import RequestError
from sfumato.generation import batches, generate
from sfumato.job import prepare
from sfumato.request import Request
from sfumato.request.guides import Apg
from sfumato.trajectory import begin
from sfumato.weights.describe import describe
from sfumato.weights.load import load
from sfumato.weights.save import save_file, save_folder

Pairs = Callable[[str], Pair]
PROMPT, NEGATIVE = "make it snow", "blurry"


@pytest.mark.parametrize(("guidance", "image_guidance"), [(7.5, 1.5), (3.0, 1.0), (1.0, 1.0)])
def test_an_edit_equals_that_of_diffusers(pair: Pairs, guidance: float, image_guidance: float) -> None:
    """One level of 255, where both sides round differently; 20 steps in float32."""
    one = pair("instruct")
    theirs = one.theirs(diffusers.StableDiffusionInstructPix2PixPipeline)
    expected = theirs(
        PROMPT,
        image=scene(),
        negative_prompt=NEGATIVE,
        num_inference_steps=20,
        guidance_scale=guidance,
        image_guidance_scale=image_guidance,
        generator=torch.Generator("cpu").manual_seed(5),
    ).images[0]
    request = Request(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        seed=5,
        steps=20,
        guidance=guidance,
        image_guidance=image_guidance,
        noise="sequential",
    )
    (found,) = generate(one.ours, request, image=scene())
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected).astype(int)).max() <= 1
    assert np.asarray(found).std() > 10  # a flat picture would prove nothing


@pytest.mark.parametrize("negative", [NEGATIVE, ""])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize(("guidance", "image_guidance", "rescale"), [(5.0, 1.5, 0.0), (3.0, 1.2, 0.5), (1.0, 1.0, 0.0)])
def test_an_edit_of_xl_equals_that_of_diffusers(
    pair: Pairs, negative: str, cosine: bool, guidance: float, image_guidance: float, rescale: float
) -> None:
    """The latents before they are decoded, at 1e-5 of their norm, and the picture; 10 steps in float32."""
    one = pair("instruct-sdxl")
    theirs = one.theirs(diffusers.StableDiffusionXLInstructPix2PixPipeline)
    theirs.is_cosxl_edit = cosine
    options = {
        "image": scene(),
        "negative_prompt": negative or None,
        "num_inference_steps": 10,
        "guidance_scale": guidance,
        "image_guidance_scale": image_guidance,
        "guidance_rescale": rescale,
        "height": SIZE,
        "width": SIZE,
    }
    drawn = [
        theirs(PROMPT, **options, generator=torch.Generator("cpu").manual_seed(5), output_type=kind).images[0]
        for kind in ("pil", "latent")
    ]
    request = Request(
        prompt=PROMPT,
        negative_prompt=negative,
        seed=5,
        steps=10,
        guidance=guidance,
        image_guidance=image_guidance,
        guidance_rescale=rescale,
        noise="sequential",
    )
    ours = replace(one.ours, options={**one.ours.options, "is_cosxl_edit": cosine})
    (found,) = generate(ours, request, image=scene())
    assert np.abs(np.asarray(found).astype(int) - np.asarray(drawn[0]).astype(int)).max() <= 1
    assert np.asarray(found).std() > 10
    job = prepare(ours, request, image=scene())
    run = begin(job, next(batches(job)))
    steps = job.sampling.run(run.denoise, run.x, run.sigmas, run.noise.step, schedule=ours.schedule)
    *_, last = (step.x for step in steps)
    assert float((run.leave(last, job.sampling)[0] - drawn[1]).norm() / drawn[1].norm()) < 1e-5


def test_the_picture_and_its_guidance_matter(pair: Pairs) -> None:
    request = Request(prompt=PROMPT, seed=5, steps=4)
    model = pair("instruct").ours
    (plain,) = generate(model, request, image=scene())
    (other,) = generate(model, request, image=scene().transpose(0))
    (stronger,) = generate(model, replace(request, image_guidance=3.0), image=scene())
    (default,) = generate(model, replace(request, image_guidance=1.5), image=scene())
    assert plain.tobytes() != other.tobytes() != stronger.tobytes()
    assert plain.tobytes() == default.tobytes()


def test_guidances_of_1_ask_the_network_once_a_step(pair: Pairs) -> None:
    model = pair("instruct").ours
    with recorded(model.unet) as calls:
        generate(model, Request(prompt=PROMPT, seed=5, steps=3, guidance=1, image_guidance=1), image=scene())
    assert calls == [1, 1, 1]


def test_outside_of_a_mask_the_bytes_stay(pair: Pairs) -> None:
    from PIL import Image

    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (16, 16, 40, 40))
    (found,) = generate(pair("instruct").ours, Request(prompt=PROMPT, seed=5, steps=3), image=scene(), mask=mask)
    outside = np.asarray(mask) == 0
    assert (np.asarray(found)[outside] == np.asarray(scene())[outside]).all()
    assert (np.asarray(found) != np.asarray(scene())).any()


def test_what_cannot_be_is_refused_before_anything_runs(pair: Pairs) -> None:
    with pytest.raises(RequestError, match="give it a start image") as caught:
        generate(pair("instruct").ours, Request(prompt=PROMPT))
    assert caught.value.field == "image"
    with pytest.raises(RequestError, match="does not see the start picture") as caught:
        generate(pair("sd1").ours, Request(prompt=PROMPT, image_guidance=1.5), image=scene())
    assert caught.value.field == "image_guidance"
    with pytest.raises(RequestError, match="image_guidance"):
        Request(image_guidance=-1)
    with pytest.raises(RequestError, match="has two, so leave it out") as caught:
        generate(pair("instruct").ours, Request(prompt=PROMPT, apg=Apg()), image=scene())
    assert caught.value.field == "apg"


def test_it_is_saved_and_read_back_in_both_formats(pair: Pairs, tmp_path: Path) -> None:
    model = pair("instruct").ours
    request = Request(prompt=PROMPT, seed=5, steps=2)
    expected = generate(model, request, image=scene())[0].tobytes()
    for path in (save_folder(model, tmp_path / "folder"), save_file(model, tmp_path / "one.safetensors")):
        found = load(path)
        assert found.family.instructed and not found.family.inpainting
        assert generate(found, request, image=scene())[0].tobytes() == expected
    assert "InstructPix2Pix" in (tmp_path / "folder/model_index.json").read_text()
    diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path / "folder", safety_checker=None)


def test_it_is_described(pair: Pairs, tmp_path: Path) -> None:
    save_folder(pair("instruct").ours, tmp_path / "folder")
    assert "from 8 channels" in describe(tmp_path / "folder").reason
