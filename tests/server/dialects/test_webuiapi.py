"""A1111's API as PyPI's `webuiapi` calls it, with the embedded model behind it."""

import threading
import time
from typing import Any

import numpy as np
import pytest
from drawing_server import TOKEN
from PIL import Image

import sfumato
from sfumato import Request

webuiapi = pytest.importorskip("webuiapi", reason="webuiapi, A1111's client from PyPI, is not installed")

SMALL = {"width": 128, "height": 128, "steps": 6, "cfg_scale": 4.0, "seed": 42}
HOUSE = "a red house on green grass"


@pytest.fixture(scope="module")
def api(drawing: str) -> Any:
    return webuiapi.WebUIApi(baseurl=f"{drawing}/sdapi/v1", username="anybody", password=TOKEN)


@pytest.fixture(scope="module")
def house(api: Any) -> Any:
    return api.txt2img(prompt=HOUSE, **SMALL)


def test_it_learns_what_there_is(api: Any) -> None:
    (name,) = api.util_get_model_names()
    assert api.util_get_current_model() == name
    api.util_set_model("drawn")
    assert "Euler a" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    assert api.get_loras() == [] and api.get_embeddings()["loaded"] == {}
    assert api.get_cmd_flags()["api"] is True
    assert api.get_memory()["ram"]["total"] > 0
    assert [each["name"] for each in api.get_upscalers()] == ["None", "Lanczos", "Nearest"]
    for listing in (api.get_sd_vae, api.get_hypernetworks, api.get_face_restorers, api.get_prompt_styles):
        assert listing() == []
    assert api.controlnet_version() == 3 and api.controlnet_model_list() == []
    assert api.refresh_checkpoints() == {}


def test_options_are_set(api: Any) -> None:
    api.set_options({"CLIP_stop_at_last_layers": 2})
    assert api.get_options()["CLIP_stop_at_last_layers"] == 2
    api.set_options({"CLIP_stop_at_last_layers": 1})


def test_words_become_the_picture_that_the_library_draws(house: Any) -> None:
    """Its defaults are A1111's GPU noise and eta 1 of the client: the same request, drawn in this process."""
    assert house.info["seed"] == 42 and house.image.size == (128, 128)
    assert house.image.info["parameters"] == house.info["infotexts"][0]
    request = Request(prompt=HOUSE, seed=42, steps=6, guidance=4.0, sampler="Euler a", noise="philox", width=128)
    (own,) = sfumato.generate(sfumato.load(), request)
    difference = np.abs(np.asarray(own).astype(int) - np.asarray(house.image.convert("RGB")).astype(int))
    assert difference.max() <= 2  # another process may have another number of threads


def test_pictures_of_a_batch_have_the_next_seeds(api: Any, house: Any) -> None:
    found = api.txt2img(prompt=HOUSE, batch_size=1, n_iter=2, **SMALL)
    assert found.info["all_seeds"] == [42, 43]
    assert found.images[0].tobytes() == house.image.tobytes() != found.images[1].tobytes()


def test_a_picture_is_changed_where_its_mask_says(api: Any, house: Any) -> None:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (32, 32, 96, 96))
    for only in (True, False):
        found = api.img2img(
            images=[house.image], mask_image=mask, prompt="a yellow moon", inpaint_full_res=only, inpainting_fill=1,
            denoising_strength=0.8, **SMALL,
        )  # fmt: skip
        before, after = np.asarray(house.image), np.asarray(found.image)
        inside = np.zeros((128, 128), bool)
        inside[32:96, 32:96] = True
        assert (after[~inside] == before[~inside]).all()
        assert (after[inside] != before[inside]).mean() > 0.5


def test_a_picture_is_drawn_over(api: Any, house: Any) -> None:
    found = api.img2img(images=[house.image], prompt="a blue house on green grass", denoising_strength=0.5, **SMALL)
    assert "Denoising strength: 0.5" in found.info["infotexts"][0]
    assert found.parameters["init_images"] is None
    assert found.image.tobytes() != house.image.tobytes()


def test_a_second_pass_makes_it_larger(api: Any, house: Any) -> None:
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_second_pass_steps": 3, "denoising_strength": 0.5}
    found = api.txt2img(prompt=HOUSE, hr_upscaler=webuiapi.HiResUpscaler.Latent, **hires, **SMALL)
    assert found.image.size == (192, 192)
    told = api.png_info(found.image).parameters
    assert (told["Hires upscale"], told["Hires steps"], told["Hires upscaler"]) == ("1.5", "3", "Latent")
    assert told["Denoising strength"] == "0.5"


def test_a_picture_tells_how_it_was_made(api: Any, house: Any) -> None:
    read = api.png_info(house.image)
    assert read.info == house.info["infotexts"][0]
    assert read.parameters["Size-1"] == "128"


def test_a_picture_is_scaled(api: Any, house: Any) -> None:
    found = api.extra_single_image(house.image, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=2)
    assert found.image.size == (256, 256)
    assert found.image.info["parameters"] == house.info["infotexts"][0]


def test_progress_is_watched_and_an_interrupt_keeps_the_picture(api: Any) -> None:
    result: list[Any] = []
    body = {**SMALL, "steps": 150}
    drawing = threading.Thread(target=lambda: result.append(api.txt2img(prompt=HOUSE, n_iter=2, **body)))
    drawing.start()
    other = webuiapi.WebUIApi(baseurl=api.baseurl, username="anybody", password=TOKEN)
    deadline = time.monotonic() + 60
    while (told := other.get_progress())["state"]["sampling_step"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 0 < told["progress"] < 0.5 and told["eta_relative"] > 0
    assert told["current_image"] is not None
    assert other.interrupt() == {}
    drawing.join(60)
    (found,) = result
    assert len(found.images) == 1 and found.image.size == (128, 128)
    assert "Halted at step: " in found.info["infotexts"][0]


def test_what_is_wrong_is_told(api: Any) -> None:
    for body, status in (({"sampler_name": "nonsense"}, 404), ({"steps": 0}, 422), ({"restore_faces": True}, 422)):
        with pytest.raises(RuntimeError) as caught:
            api.txt2img(**{**SMALL, **body})
        assert caught.value.args[0] == status
