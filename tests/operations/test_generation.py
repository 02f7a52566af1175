"""What a request promises about its pictures, on a tiny model with random weights."""

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SIZE, Pair, recorded, scene

from sfumato.errors import PictureError, RequestError
from sfumato.events import Finished, Preview, Progress
from sfumato.generation import batches, generate, stream
from sfumato.job import prepare
from sfumato.model import Model
from sfumato.request import Request
from sfumato.trajectory import begin

PROMPT = "a red house on green grass"
STEPS = 4
STOCHASTIC = "euler_a"  # its noise is drawn at every step


def request(**changes: object) -> Request:
    fields = {"prompt": PROMPT, "seed": 11, "steps": STEPS, "guidance": 5.0, "width": SIZE, "height": SIZE}
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def one(model: Model, **changes: object) -> Image.Image:
    pictures = {name: changes.pop(name) for name in ("image", "mask") if name in changes}
    (picture,) = generate(model, request(**changes), **pictures, metadata=False)  # type: ignore[arg-type]
    return picture


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def test_the_same_request_gives_the_same_bytes(tiny: Model) -> None:
    assert one(tiny).tobytes() == one(tiny).tobytes()
    assert one(tiny).tobytes() != one(tiny, seed=12).tobytes()


def test_the_same_request_gives_the_same_bytes_in_a_new_process(tiny: Model) -> None:
    here = one(tiny, sampler=STOCHASTIC).tobytes()
    code = f"""if True:
        import sys, torch
        torch.set_num_threads(1)
        from sfumato.weights.load import load
        from sfumato.generation import generate
        from sfumato.request import Request
        request = Request.from_json({request(sampler=STOCHASTIC).to_json()!r})
        sys.stdout.buffer.write(generate(load({str(tiny.source)!r}), request, metadata=False)[0].tobytes())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == here


def test_nothing_is_drawn_from_the_global_generator(tiny: Model) -> None:
    before = torch.get_rng_state()
    one(tiny, sampler=STOCHASTIC, image=scene(), strength=0.5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sampler", ["ddim", STOCHASTIC])
@pytest.mark.parametrize("noise", ["keyed", "sequential", "philox"])
def test_picture_i_has_the_bytes_of_seed_plus_i_alone(tiny: Model, sampler: str, noise: str) -> None:
    together = generate(tiny, request(count=3, sampler=sampler, noise=noise, strict=True), metadata=False)
    for index, picture in enumerate(together):
        assert picture.tobytes() == one(tiny, seed=11 + index, sampler=sampler, noise=noise).tobytes()


@pytest.mark.parametrize("sampler", ["ddim", STOCHASTIC])
def test_a_picture_of_a_batch_is_the_one_made_alone(tiny: Model, sampler: str) -> None:
    batched = generate(tiny, request(count=3, batch=3, sampler=sampler), metadata=False)
    for index, picture in enumerate(batched):
        alone = array(one(tiny, seed=11 + index, sampler=sampler))
        assert np.abs(array(picture) - alone).max() <= 2  # matrix products may round differently in larger batches


def test_several_prompts_come_in_order_and_long_ones_do_not_change_short_ones(tiny: Model) -> None:
    long = "a house, " * 60  # two chunks
    pictures = generate(tiny, request(prompt=[PROMPT, long, "a cat"], count=2, batch=4), metadata=False)
    assert len(pictures) == 6
    expected = [(PROMPT, 11), (PROMPT, 12), (long, 13), (long, 14), ("a cat", 15), ("a cat", 16)]
    for picture, (prompt, seed) in zip(pictures, expected, strict=True):
        assert np.abs(array(picture) - array(one(tiny, prompt=prompt, seed=seed))).max() <= 2
    sizes = [batch.pictures for batch in batches(prepare(tiny, request(prompt=[PROMPT, long, "a cat"], batch=3)))]
    assert sizes == [(0,), (1,), (2,)]


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 23), (63, 65), (72, 40)])
def test_the_picture_has_the_size_that_was_asked_for(tiny: Model, width: int, height: int) -> None:
    assert one(tiny, width=width, height=height).size == (width, height)
    edited = one(tiny, width=width, height=height, image=scene(50, 30), strength=0.5)
    assert edited.size == (width, height)


def test_a_size_between_strides_is_the_top_left_of_the_next_larger_one(tiny: Model) -> None:
    assert one(tiny, width=60, height=61).tobytes() == one(tiny).crop((0, 0, 60, 61)).tobytes()


def test_guidance_1_asks_the_network_once_a_step_about_one_picture(tiny: Model) -> None:
    with recorded(tiny.unet) as calls:
        one(tiny, guidance=1.0)
    assert calls == [1] * STEPS
    with recorded(tiny.unet) as calls:
        one(tiny, guidance=5.0)
    assert calls == [2] * STEPS


def test_guidance_1_does_not_depend_on_the_negative_prompt(tiny: Model) -> None:
    assert one(tiny, guidance=1.0, negative_prompt="x").tobytes() == one(tiny, guidance=1.0).tobytes()
    assert one(tiny, guidance=5.0, negative_prompt="x").tobytes() != one(tiny, guidance=5.0).tobytes()


def test_guidance_0_is_the_negative_prompt_alone(tiny: Model) -> None:
    assert (
        np.abs(array(one(tiny, guidance=0.0, negative_prompt="x")) - array(one(tiny, prompt="x", guidance=1.0))).max()
        <= 1
    )


def test_the_guidance_interval_limits_where_both_prompts_are_asked(tiny: Model) -> None:
    assert one(tiny, guidance_interval=(0.0, 1.0)).tobytes() == one(tiny).tobytes()
    assert one(tiny, guidance_interval=(0.0, 0.0)).tobytes() == one(tiny, guidance=1.0).tobytes()
    with recorded(tiny.unet) as calls:
        one(tiny, guidance_interval=(0.3, 1.0))
    # 4 leading steps are at 751, 501, 251 and 1 of 999 timesteps: the parts 0.25, 0.5, 0.75 and 1
    assert calls == [1, 2, 2, 2]


def test_a_weight_of_1_changes_nothing(tiny: Model) -> None:
    assert one(tiny, prompt=f"({PROMPT}:1.0)").tobytes() == one(tiny).tobytes()


def test_clip_skip_leaves_out_the_last_layers(tiny: Model) -> None:
    shorter = deepcopy(tiny.text)
    (encoder,) = shorter.encoders
    del encoder.text_model.encoder.layers[-1]
    encoder.config = replace(encoder.config, num_hidden_layers=encoder.config.num_hidden_layers - 1)
    skipped = one(tiny, clip_skip=1).tobytes()
    assert skipped == one(replace(tiny, text=shorter)).tobytes()
    assert skipped != one(tiny).tobytes()


def test_strength_1_is_txt2img_and_strength_0_is_the_start_picture(tiny: Model) -> None:
    assert one(tiny, image=scene(), strength=1.0).tobytes() == one(tiny).tobytes()
    assert one(tiny, image=scene(), strength=0.0).tobytes() == scene().tobytes()
    with recorded(tiny.unet) as calls:
        one(tiny, image=scene(), strength=0.0)
    assert calls == []


@pytest.mark.parametrize(("steps", "strength", "runs"), [(4, 0.5, 2), (10, 0.39, 3), (10, 0.05, 0), (7, 1.0, 7)])
def test_strength_runs_the_last_steps(tiny: Model, steps: int, strength: float, runs: int) -> None:
    with recorded(tiny.unet) as calls:
        one(tiny, image=scene(), strength=strength, steps=steps)
    assert len(calls) == runs


def test_a_start_picture_of_another_size_is_cropped_to_fill(tiny: Model) -> None:
    wide = scene(2 * SIZE, SIZE)
    middle = wide.crop((SIZE // 2, 0, SIZE // 2 + SIZE, SIZE))
    assert one(tiny, image=wide, strength=0.5).tobytes() == one(tiny, image=middle, strength=0.5).tobytes()


def test_the_size_of_the_start_picture_is_kept_unless_another_is_asked(tiny: Model) -> None:
    assert one(tiny, image=scene(48, 24), strength=0.5, width=None, height=None).size == (48, 24)
    assert one(tiny, image=scene(48, 24), strength=0.5, width=32, height=None).size == (32, 16)
    with pytest.raises(RequestError, match="ask for a size") as caught:
        one(tiny, image=Image.new("RGB", (6000, 6000)), width=None, height=None)
    assert caught.value.field == "width"


def rectangle(box: tuple[int, int, int, int] = (16, 8, 56, 40), value: int = 255) -> Image.Image:
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(value, box)
    return mask


@pytest.mark.parametrize("kind", ["sd1", "inpaint"])
@pytest.mark.parametrize("blur", [None, 3.0])
def test_ten_edits_leave_what_is_outside_the_mask_alone(
    pair: Callable[[str], Pair], kind: str, blur: float | None
) -> None:
    model, mask, picture = pair(kind).ours, rectangle((13, 7, 49, 41)), scene(SIZE, SIZE)
    outside = np.asarray(mask) == 0
    for seed in range(10):
        picture = one(model, image=picture, mask=mask, mask_blur=blur, seed=seed, steps=2, strength=1.0)
    assert (array(picture)[outside] == array(scene())[outside]).all()
    assert (array(picture)[~outside] != array(scene())[~outside]).mean() > 0.8


@pytest.mark.parametrize("kind", ["sd1", "inpaint"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_black_mask_is_the_start_picture_and_a_white_one_is_img2img(
    pair: Callable[[str], Pair], kind: str, strength: float
) -> None:
    model = pair(kind).ours
    black, white = Image.new("L", (SIZE, SIZE), 0), Image.new("L", (SIZE, SIZE), 255)
    assert one(model, image=scene(), mask=black, strength=strength).tobytes() == scene().tobytes()
    repainted = one(model, image=scene(), mask=white, strength=strength)
    assert repainted.tobytes() == one(model, image=scene(), strength=strength).tobytes()


def test_a_grey_mask_mixes_both_before_rounding_once(tiny: Model) -> None:
    white = array(one(tiny, image=scene(), mask=Image.new("L", (SIZE, SIZE), 255), strength=1.0))
    grey = array(one(tiny, image=scene(), mask=Image.new("L", (SIZE, SIZE), 51), strength=1.0))
    # 51 / 255 = 0.2; the repainted picture is known up to half a level, and half a level is lost in rounding
    assert np.abs(grey - (0.2 * white + 0.8 * array(scene()))).max() <= 0.2 * 0.5 + 0.5 + 1e-3


def test_a_stroke_of_one_pixel_is_repainted(tiny: Model) -> None:
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (30, 0, 31, SIZE))
    assert (array(one(tiny, image=scene(), mask=mask)) != array(scene())).any(axis=2)[:, 30].mean() > 0.8


def test_a_mask_of_another_size_is_refused(tiny: Model) -> None:
    with pytest.raises(RequestError, match="one size") as caught:
        one(tiny, image=scene(), mask=Image.new("L", (SIZE, SIZE + 1)))
    assert caught.value.field == "mask"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"strength": 0.5}, "strength"),
        ({"mask": Image.new("L", (8, 8))}, "mask"),
        ({"image": scene(), "mask_blur": 2}, "mask_blur"),
        ({"sampler": "eular"}, "sampler"),
        ({"spacing": "karas"}, "spacing"),
        ({"sampler": "dpmpp_2m", "eta": 0.5}, "eta"),
        ({"clip_skip": 40}, "clip_skip"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field(tiny: Model, changes: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        one(tiny, **changes)
    assert caught.value.field == field


def test_a_picture_that_was_not_handed_over_is_asked_for(tiny: Model) -> None:
    with pytest.raises(RequestError, match="handed over"):
        generate(tiny, request(image="sha256:00", strength=0.5))


@pytest.mark.parametrize("sampler", ["ddim", STOCHASTIC])
def test_two_halves_are_the_whole(tiny: Model, sampler: str) -> None:
    job = prepare(tiny, request(sampler=sampler, steps=6))
    (batch,) = batches(job)
    run = begin(job, batch)
    whole = list(job.sampling.run(run.denoise, run.x, run.sigmas, run.noise.step, schedule=tiny.schedule))

    def later(index: int) -> torch.Tensor:
        return run.noise.step(index + 3)

    half = list(job.sampling.run(run.denoise, whole[2].x, run.sigmas[3:], later, schedule=tiny.schedule))
    assert torch.equal(half[-1].x, whole[-1].x)


@pytest.mark.parametrize(
    "sampler",
    [
        "ddpm",
        "heun",
        "dpm2",
        "dpm2_a",
        "lms",
        "dpmpp_2s_a",
        "dpmpp_sde",
        "dpmpp_2m_sde",
        "dpmpp_3m_sde",
        "deis",
        "lcm",
        "tcd",
    ],
)
def test_every_preset_draws_the_same_alone_and_in_company(tiny: Model, sampler: str) -> None:
    together = generate(tiny, request(count=2, batch=2, sampler=sampler), metadata=False)
    assert np.abs(array(together[1]) - array(one(tiny, sampler=sampler, seed=12))).max() <= 2


def test_progress_previews_and_pictures_come_in_order(tiny: Model) -> None:
    events = list(stream(tiny, request(count=2, steps=5), preview_every=2))
    kinds = [type(event) for event in events]
    assert kinds == 2 * [Progress, Progress, Preview, Progress, Progress, Preview, Progress, Finished]
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.step, event.steps, event.pictures) for event in progress[:5]] == [(n, 5, (0,)) for n in range(1, 6)]
    assert progress[0].denoised.shape == (1, 4, 8, 8)
    shown = next(event for event in events if isinstance(event, Preview))
    assert [image.size for image in shown.images] == [(8, 8)]
    finished = [event for event in events if isinstance(event, Finished)]
    assert [(event.index, event.seed) for event in finished] == [(0, 11), (1, 12)]


def test_leaving_the_loop_cancels_and_keeps_what_is_finished(tiny: Model) -> None:
    made = []
    with recorded(tiny.unet) as calls:
        for event in stream(tiny, request(count=3)):
            if isinstance(event, Finished):
                made.append(event.picture)
            if isinstance(event, Progress) and event.pictures == (1,) and event.step == 2:
                break
    assert len(made) == 1
    assert len(calls) == STEPS + 2


def test_a_request_is_resolved_to_what_suits_the_model(tiny: Model) -> None:
    resolved = prepare(tiny, Request(prompt=PROMPT)).request
    assert (resolved.width, resolved.height) == (tiny.family.size, tiny.family.size)
    assert (resolved.steps, resolved.guidance, resolved.sampler) == (tiny.family.steps, tiny.family.guidance, "ddim")
    assert resolved.seed is not None
    assert resolved.seed != prepare(tiny, Request(prompt=PROMPT)).request.seed
    assert prepare(tiny, resolved).request == resolved


def test_weights_that_are_not_finite_make_no_black_picture(tiny: Model) -> None:
    broken = deepcopy(tiny.autoencoder)
    with torch.no_grad():
        broken.decoder.conv_out.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(PictureError, match="not finite"):
        one(replace(tiny, autoencoder=broken))


def test_half_precision_draws_nearly_the_same(tiny: Model) -> None:
    # bfloat16 has 8 bits: 1/256 of a step's change, over a few steps, through an untrained decoder
    own = {"unet": deepcopy(tiny.unet), "autoencoder": deepcopy(tiny.autoencoder), "text": deepcopy(tiny.text)}
    half = replace(tiny, **own).to(dtype=torch.bfloat16)
    assert np.abs(array(one(half, guidance=1.0)) - array(one(tiny, guidance=1.0))).mean() < 8


def test_a_nine_channel_network_draws_without_a_picture(pair: Callable[[str], Pair]) -> None:
    assert one(pair("inpaint").ours).size == (SIZE, SIZE)


def test_pictures_can_be_paths(tiny: Model, tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    rectangle().save(tmp_path / "m.png")
    (by_path,) = generate(tiny, request(image=tmp_path / "a.png", mask=str(tmp_path / "m.png")), metadata=False)
    assert by_path.tobytes() == one(tiny, image=scene(), mask=rectangle()).tobytes()


@pytest.mark.parametrize(("rule", "strength", "steps"), [("a1111", 0.5, 3), ("a1111", 0.0, 1), ("whole", 0.25, 4)])
def test_the_steps_of_a_strength_are_counted_as_another_tool_counts_them(
    tiny: Model, rule: str, strength: float, steps: int
) -> None:
    events = stream(tiny, request(strength=strength, strength_rule=rule), image=scene(), metadata=False)
    assert [event.steps for event in events if isinstance(event, Progress)] == [steps] * steps


@pytest.mark.parametrize("rule", ["a1111", "whole"])
def test_a_whole_strength_of_another_tool_still_begins_with_the_picture(tiny: Model, rule: str) -> None:
    """Both add the noise to the latent, which is not quite nothing at the highest level."""
    job = prepare(tiny, request(strength=1.0, strength_rule=rule, sampler="Euler"), image=scene())
    run = begin(job, next(batches(job)))
    noise = begin(prepare(tiny, request(sampler="Euler")), next(batches(prepare(tiny, request(sampler="Euler")))))
    assert torch.allclose(run.x - noise.x, job.posterior.sample(noise.noise.draw("posterior")), atol=1e-5)


def test_a_rule_for_the_strength_needs_a_start_picture(tiny: Model) -> None:
    with pytest.raises(RequestError, match="strength_rule is given but no image"):
        prepare(tiny, request(strength_rule="a1111"))
