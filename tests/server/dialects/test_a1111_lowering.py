"""A1111's bodies to requests. What is expected is what its 1.10 does (modules/processing.py, modules/api)."""

from typing import Any

import pytest

from sfumato.request import Variation
from sfumato.request.guides import SoftInpainting
from sfumato.server.dialects.a1111_catalogue import Catalogue, title
from sfumato.server.dialects.a1111_lowering import Order, lower, picture_fields
from sfumato.server.dialects.a1111_options import DEFAULTS
from sfumato.server.problems import Problem
from sfumato.server.values import ModelCard
from sfumato.wording import Style

HASH = "6ce0161689" + "0" * 54
CARDS = (
    ModelCard(name="drawn-world", title="", family="sfumato", hash="a" * 64, default=True),
    ModelCard(name="v1-5-pruned.safetensors", title="", family="sd15", hash=HASH),
    ModelCard(name="xl", title="", family="sdxl", hash="b" * 64),
)
CATALOGUE = Catalogue(
    CARDS,
    vaes={"ft-mse.safetensors": "ft-mse.safetensors"},
    embeddings={"bad/EasyNegative": "bad/EasyNegative"},
    titled={"own.safetensors [0123456789]": "xl"}.get,
    styles={"oil": Style("oil", "oil painting of {prompt}"), "warm": Style("warm", "warm light")},
)
PICTURES = {"image": "sha256:" + "a" * 64}
MASKED = {**PICTURES, "mask": "sha256:" + "b" * 64}


def order(body: dict[str, Any], options: dict[str, Any] | None = None, *, img2img: bool = False) -> Order:
    pictures = MASKED if body.pop("masked", False) else PICTURES
    return lower(body, options or DEFAULTS, CATALOGUE, pictures if img2img else {}, img2img=img2img)


def test_what_is_left_out_is_a1111s_and_the_size_is_the_models() -> None:
    request = order({}).request
    assert (request.prompt, request.steps, request.guidance, request.sampler) == ("", 50, 7.0, "Euler")
    assert (request.spacing, request.seed, request.width, request.height) == (None, None, None, None)
    assert (request.count, request.batch, request.clip_skip, request.noise) == (1, 1, 0, "philox")
    assert request.model == "drawn-world"


def test_what_clients_send_all_the_time_changes_nothing() -> None:
    """What webuiapi sends where its user says nothing."""
    body = {
        "enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "hr_prompt": "", "denoising_strength": 0.7,
        "firstphase_width": 0, "styles": [], "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_h": 0,
        "seed_resize_from_w": 0, "restore_faces": False, "tiling": False, "do_not_save_samples": False, "eta": 1.0,
        "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "override_settings": {}, "script_name": None,
        "script_args": [], "send_images": True, "save_images": False, "alwayson_scripts": {}, "unheard_of": {"x": 1},
        "comments": {}, "refiner_checkpoint": None, "sampler_name": "Euler", "sampler_index": "Euler a",
    }  # fmt: skip
    assert order(body).request == order({}).request


def test_batches_count_the_seed_up() -> None:
    request = order({"seed": 7, "batch_size": 3, "n_iter": 2}).request
    assert (request.seed, request.count, request.batch) == (7, 6, 3)


@pytest.mark.parametrize("seed", [-1, "-1", None, ""])
def test_a_seed_that_is_none_is_drawn(seed: object) -> None:
    assert order({"seed": seed}).request.seed is None


def test_a_subseed_counts_where_it_has_a_strength() -> None:
    assert order({"subseed": 9}).request.variation is None
    assert order({"subseed": 9, "subseed_strength": 0.3}).request.variation == Variation(0.3, 9)
    assert order({"subseed": -1, "subseed_strength": 0.3}).request.variation == Variation(0.3)
    assert order({"seed_resize_from_w": 512, "seed_resize_from_h": -1}).request.seed_size is None
    assert order({"seed_resize_from_w": 512, "seed_resize_from_h": 256}).request.seed_size == (512, 256)


@pytest.mark.parametrize(
    ("source", "text", "picture"),
    [("GPU", "philox", "philox"), ("NV", "philox", "philox"), ("CPU", "sequential", "keyed")],
)
def test_the_source_of_noise_is_an_option(source: str, text: str, picture: str) -> None:
    body = {"override_settings": {"randn_source": source}}
    assert order(dict(body)).request.noise == text
    assert order(dict(body), img2img=True).request.noise == picture


def test_settings_override_options() -> None:
    options = DEFAULTS | {"CLIP_stop_at_last_layers": 3, "eta_noise_seed_delta": 31337}
    assert order({}, options).request.clip_skip == 2
    assert order({}, options).request.step_seed_delta == 31337
    assert order({}, DEFAULTS | {"CLIP_stop_at_last_layers": "3.0"}).request.clip_skip == 2
    override = {"CLIP_stop_at_last_layers": 1, "eta_noise_seed_delta": 0, "sd_vae": "ft-mse"}
    request = order({"override_settings": override}, options).request
    assert (request.clip_skip, request.step_seed_delta, request.vae) == (0, None, "ft-mse.safetensors")


@pytest.mark.parametrize(
    "name", ["v1-5-pruned.safetensors", "v1-5-pruned", "v1-5-pruned.safetensors [6ce0161689]", "6ce0161689", HASH]
)
def test_checkpoints_go_by_title_file_stem_and_hash(name: str) -> None:
    assert order({"override_settings": {"sd_model_checkpoint": name}}).request.model == "v1-5-pruned.safetensors"
    assert order({"override_settings": {"sd_model_checkpoint": "own.safetensors [0123456789]"}}).request.model == "xl"
    assert title(CARDS[1]) == "v1-5-pruned.safetensors [6ce0161689]"


def test_an_unknown_checkpoint_is_a_404() -> None:
    with pytest.raises(Problem, match="Model not found: nonsense; there are drawn-world") as caught:
        order({"override_settings": {"sd_model_checkpoint": "nonsense"}})
    assert caught.value.status == 404


def test_eta_is_for_those_that_take_it() -> None:
    assert order({"eta": 1.0, "sampler_name": "Euler"}).request.eta is None
    assert order({"eta": 0.5, "sampler_name": "Euler a"}).request.eta == 0.5
    assert order({"eta": 1.0, "sampler_name": "DDIM"}).request.eta == 1.0
    assert order({"sampler_name": "Euler a"}).request.eta is None


def test_an_sdxl_model_aligns_its_own_steps() -> None:
    body = {"scheduler": "Align Your Steps", "override_settings": {"sd_model_checkpoint": "xl"}}
    assert order(body).request.spacing == "align_your_steps_sdxl"


def test_the_wildcards_script_asks_for_what_is_done_anyway() -> None:
    """As webuiapi's README sends it: a list, and no object."""
    assert order({"prompt": "a __colour__ cat", "alwayson_scripts": {"Simple wildcards": []}}).request.prompt == (
        "a __colour__ cat"
    )


def test_an_upscaler_that_is_not_there_is_refused_in_a1111s_words() -> None:
    with pytest.raises(Problem, match=r"there are Latent, Latent \(antialiased\), .*, Nearest, .*, Lanczos"):
        order({"enable_hr": True, "hr_upscaler": "R-ESRGAN 4x+", "denoising_strength": 0.5})


def test_styles_are_those_of_the_request() -> None:
    found = order({"prompt": "a cat", "negative_prompt": "dog", "styles": ["oil", "warm"]})
    assert (found.request.prompt, found.request.styles) == ("a cat", ("oil", "warm"))
    assert (found.prompt, found.styles) == ("a cat", ("oil", "warm"))
    found = order({"styles": ["none of ours", "oil"]})  # as A1111: nothing comes of it
    assert (found.request.styles, found.styles) == (("oil",), ("none of ours", "oil"))


def test_what_prompts_name_is_the_requests_own_affair() -> None:
    """LoRAs and embeddings are found by whoever draws, in the dialect's prompts."""
    body = {"prompt": "a <lora:ink:0.8> cat", "negative_prompt": "easynegative, dog"}
    request = order(body).request
    assert (request.prompt, request.dialect) == ("a <lora:ink:0.8> cat", "a1111")
    assert request.embeddings == ()


def test_a_start_picture_is_drawn_over_as_a1111_counts() -> None:
    request = order({}, img2img=True).request
    assert (request.image, request.strength, request.strength_rule) == (PICTURES["image"], 0.75, "a1111")
    assert (request.mask, request.resize_mode) == (None, "stretch")
    assert order({"resize_mode": 2, "denoising_strength": 0}, img2img=True).request.resize_mode == "fill"
    assert order({"resize_mode": 3, "denoising_strength": 0.5}, img2img=True).request.resize_mode == "latent"
    fixed = order({"override_settings": {"img2img_fix_steps": True}}, img2img=True).request
    assert fixed.strength_rule == "whole"


def test_a_mask_is_worked_on_alone_and_filled_unless_it_is_said() -> None:
    request = order({"masked": True}, img2img=True).request
    assert (request.mask, request.mask_blur, request.mask_invert) == (MASKED["mask"], 4.0, False)
    assert (request.masked_only, request.padding, request.masked_content) == (True, 0, "fill")
    assert request.resize_mode is None  # the box alone is scaled


@pytest.mark.parametrize(("sent", "content"), [(0, "fill"), (1, "original"), (2, "noise"), (3, "nothing")])
def test_all_fields_of_inpainting_are_read(sent: int, content: str) -> None:
    body = {
        "masked": True,
        "inpainting_fill": sent,
        "inpaint_full_res": False,
        "inpaint_full_res_padding": 32,
        "inpainting_mask_invert": 1,
        "mask_blur": 8,
        "mask_blur_x": 4,
        "mask_blur_y": 4,
        "resize_mode": 1,
    }
    request = order(body, img2img=True).request
    assert (request.masked_content, request.masked_only, request.padding) == (content, False, None)
    assert (request.mask_invert, request.mask_blur, request.resize_mode) == (True, 8.0, "crop")
    only = order({"masked": True, "inpaint_full_res_padding": 32, "mask_blur_x": 6, "mask_blur_y": 6}, img2img=True)
    assert (only.request.padding, only.request.mask_blur) == (32, 6.0)


def test_pictures_are_found_under_the_names_that_lowering_wants() -> None:
    assert picture_fields({"init_images": ["QQ=="]}, img2img=False) == {}
    assert picture_fields({"init_images": ["QQ=="], "mask": "Qg=="}, img2img=True) == {"image": "QQ==", "mask": "Qg=="}
    for body in ({}, {"init_images": None}, {"init_images": []}):
        with pytest.raises(Problem, match="Init image not found") as caught:
            picture_fields(body, img2img=True)
        assert caught.value.status == 404


REFUSED = [
    ({"s_churn": 5}, "s_churn"),
    ({"s_noise": 1.1, "sampler_name": "Euler a"}, "s_noise"),
    ({"s_min_uncond": 1}, "s_min_uncond"),
    ({"restore_faces": True}, "restore_faces"),
    ({"script_name": "x/y/z plot"}, "script_name"),
    ({"alwayson_scripts": {"ADetailer": {"args": [True]}}}, "alwayson_scripts"),
    ({"styles": [["oil"]]}, "styles"),
    ({"override_settings": {"token_merging_ratio": 0.5}}, "token_merging_ratio"),
    ({"override_settings": {"sd_vae": "nonsense"}}, "sd_vae"),
    ({"override_settings": {"CLIP_stop_at_last_layers": 0}}, "CLIP_stop_at_last_layers"),
    ({"override_settings": {"eta_noise_seed_delta": "abc"}}, "eta_noise_seed_delta"),
    ({"override_settings": {"eta_noise_seed_delta": -1}}, "eta_noise_seed_delta"),
    ({"override_settings": {"randn_source": "dice"}}, "randn_source"),
    ({"override_settings": []}, "override_settings"),
    ({"steps": 0}, "steps"),
    ({"steps": "many"}, "steps"),
    ({"cfg_scale": 1000}, "cfg_scale"),
    ({"width": 8}, "width"),
    ({"batch_size": 0}, "batch_size"),
    ({"n_iter": -1}, "n_iter"),
    ({"seed": -5}, "seed"),
    ({"subseed_strength": 2}, "subseed_strength"),
    ({"prompt": ["a", "b"]}, "prompt"),
]
REFUSED_PICTURES = [
    ({"resize_mode": 3, "masked": True}, "resize_mode"),
    ({"resize_mode": 9}, "resize_mode"),
    ({"denoising_strength": 1.5}, "denoising_strength"),
    ({"initial_noise_multiplier": 0.9}, "initial_noise_multiplier"),
    ({"masked": True, "inpainting_fill": 7}, "inpainting_fill"),
    ({"masked": True, "mask_blur_x": 4, "mask_blur_y": 8}, "mask_blur_x"),
]


@pytest.mark.parametrize(("body", "field"), [*REFUSED, *REFUSED_PICTURES])
def test_what_cannot_be_honoured_is_refused_by_name(body: dict[str, Any], field: str) -> None:
    img2img = (body, field) in REFUSED_PICTURES
    with pytest.raises(Problem) as caught:
        order(dict(body), img2img=img2img)
    assert (caught.value.status, caught.value.field) == (422, field)
    assert field in str(caught.value)


@pytest.mark.parametrize("body", [{"s_churn": 5, "sampler_name": "DPM++ 2M"}, {"s_noise": 1.1, "sampler_name": "PLMS"}])
def test_noise_within_steps_is_left_where_the_sampler_takes_none(body: dict[str, Any]) -> None:
    order(body)


def test_several_start_pictures_are_refused() -> None:
    with pytest.raises(Problem, match="init_images has 2 pictures"):
        picture_fields({"init_images": ["QQ==", "Qg=="]}, img2img=True)


def test_a_second_pass_has_its_own_settings_and_runs_all_its_steps() -> None:
    """processing.py: steps are given to the second pass, so that img2img_fix_steps' rule holds."""
    assert order({"hr_scale": 3}).request.hires is None
    hires = order({"enable_hr": True}).request.hires
    assert hires is not None
    assert (hires.scale, hires.size, hires.upscaler, hires.strength) == (2.0, None, "latent", 0.75)
    assert (hires.strength_rule, hires.steps, hires.sampler, hires.prompt) == ("whole", None, None, None)
    body = {
        "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent (bicubic antialiased)", "denoising_strength": 0.4,
        "hr_second_pass_steps": 9, "hr_sampler_name": "DPM++ 2M Karras", "hr_prompt": "sharp", "width": 128,
    }  # fmt: skip
    hires = order(body).request.hires
    assert hires is not None
    assert (hires.scale, hires.upscaler, hires.strength, hires.steps) == (1.5, "latent_bicubic_antialiased", 0.4, 9)
    assert (hires.sampler, hires.spacing, hires.prompt) == ("DPM++ 2M", "karras", "sharp")
    same = {"hr_sampler_name": "Use same sampler", "hr_scheduler": "Use same scheduler", "hr_upscaler": "None"}
    hires = order({"enable_hr": True, **same}).request.hires
    assert hires is not None and (hires.sampler, hires.spacing, hires.upscaler) == (None, None, "lanczos")


@pytest.mark.parametrize(
    ("body", "size", "first"),
    [
        ({"hr_resize_x": 256, "hr_resize_y": 320}, (256, 320), (128, 64)),
        ({"hr_resize_x": 256}, (256, 128), (128, 64)),
        ({"hr_resize_y": 256}, (512, 256), (128, 64)),
        ({"firstphase_width": 64, "firstphase_height": 32}, (128, 64), (64, 32)),
    ],
)
def test_a_second_pass_may_have_a_size(body: dict[str, int], size: tuple[int, int], first: tuple[int, int]) -> None:
    request = order({"enable_hr": True, "width": 128, "height": 64, **body}).request
    assert request.hires is not None and request.hires.size == size
    assert (request.width, request.height) == first


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"hr_checkpoint_name": "xl"}, "hr_checkpoint_name"),
        ({"hr_checkpoint_name": "nonsense"}, "hr_checkpoint_name"),
        ({"hr_upscaler": "R-ESRGAN 4x+"}, "hr_upscaler"),
        ({"hr_scale": 100}, "hr_scale"),
        ({"hr_scheduler": "nonsense"}, "hr_scheduler"),
        ({"hr_second_pass_steps": -1}, "hr_second_pass_steps"),
        ({"hr_prompt": "<lora:ink:1>"}, "hr_prompt"),
        ({"firstphase_width": 64}, "firstphase_width"),
    ],
)
def test_a_second_pass_that_cannot_be_is_refused_by_name(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as caught:
        order({"enable_hr": True, **body})
    assert caught.value.field == field


def test_tiling_is_in_both_directions_and_self_attention_guidance_a_script() -> None:
    assert order({"tiling": True}).request.tiling == "both"
    scripts = {"Self Attention Guidance": {"args": [True, 0.6, 1.5]}, "ControlNet": {"args": []}}
    request = order({"alwayson_scripts": scripts}).request
    assert request.self_attention_guidance is not None and request.self_attention_guidance.scale == 0.6
    assert order({"alwayson_scripts": {"Self Attention Guidance": {"args": [False, 0.6]}}}).request.controls == ()


def test_soft_inpainting_is_a_script_that_counts_with_a_mask() -> None:
    """extensions-builtin/soft-inpainting: enabled, power, scale, detail preservation, and three for laying over."""
    scripts = {"Soft Inpainting": {"args": [True, 2, 0.7, 3, 0, 0.5, 2]}}
    soft = order({"masked": True, "alwayson_scripts": scripts}, img2img=True).request.soft_inpainting
    assert soft is not None
    assert (soft.schedule_bias, soft.preservation_strength, soft.transition_contrast_boost) == (2, 0.7, 3)
    assert order({"alwayson_scripts": scripts}).request.soft_inpainting is None
    off = {"Soft Inpainting": {"args": [False]}}
    assert order({"masked": True, "alwayson_scripts": off}, img2img=True).request.soft_inpainting is None


def test_a_refiner_draws_on_from_its_part_of_the_timesteps() -> None:
    """modules/sd_samplers_common.py, apply_refiner: by timesteps, and at once where no part is told."""
    assert order({"refiner_checkpoint": "None", "refiner_switch_at": 0.5}).request.refiner is None
    assert order({"refiner_checkpoint": "xl", "refiner_switch_at": 1}).request.refiner is None
    for sent, at in ((0.8, 0.8), (None, 0.0)):
        refiner = order({"refiner_checkpoint": f"xl [{'b' * 10}]", "refiner_switch_at": sent}).request.refiner
        assert refiner is not None and (refiner.model, refiner.at) == ("xl", at)
    with pytest.raises(Problem) as caught:
        order({"refiner_checkpoint": "nonsense", "refiner_switch_at": 0.8})
    assert (caught.value.status, caught.value.field) == (404, "refiner_checkpoint")


def test_how_a_mask_acts_can_be_said_in_an_option_of_our_own() -> None:
    for value in ("network", "blend", None):
        body = {"masked": True, "override_settings": {"sfumato_masking": value}}
        assert order(body, img2img=True).request.masking == value
    assert order({}, {**DEFAULTS, "sfumato_masking": "blend"}, img2img=True).request.masking is None  # without a mask
    with pytest.raises(Problem, match="must be network or blend") as caught:
        order({"masked": True, "override_settings": {"sfumato_masking": "both"}}, img2img=True)
    assert caught.value.field == "sfumato_masking"


def test_soft_inpainting_has_all_six_numbers_and_its_own_where_a_body_has_fewer() -> None:
    def soft(*arguments: Any) -> Order:
        scripts = {"soft inpainting": {"args": [True, *arguments]}}
        return order({"masked": True, "alwayson_scripts": scripts}, img2img=True)

    assert soft(2, 0.75, 3, 0.1, 0.25, 5).request.soft_inpainting == SoftInpainting(2, 0.75, 3, 0.1, 0.25, 5)
    assert soft(2).request.soft_inpainting == SoftInpainting(2, 0.5, 4, 0, 0.5, 2)
    assert soft().request.soft_inpainting == SoftInpainting(difference_threshold=0.5)
    for place, name in enumerate(("mask_influence", "difference_threshold", "difference_contrast")):
        with pytest.raises(Problem, match=f"soft_inpainting.{name} is 9"):
            soft(1, 0.5, 4, *([0, 0.5, 2][:place]), 9)
