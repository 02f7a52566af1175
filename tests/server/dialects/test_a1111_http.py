"""A1111's routes over a stub that draws: shapes, errors, options, progress, interrupt. Shapes are those of its 1.10."""

import base64
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hanging_up import state_after_hanging_up
from PIL import Image
from safetensors.torch import save_file
from starlette.testclient import TestClient

from sfumato.weights.locate import add_alias
from sfumato.weights.registry import Kind

API = "/sdapi/v1"
INFO = {
    "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed", "all_subseeds",
    "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size", "restore_faces",
    "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash", "seed_resize_from_w",
    "seed_resize_from_h", "denoising_strength", "extra_generation_params", "index_of_first_image", "infotexts",
    "styles", "job_timestamp", "clip_skip", "is_using_inpainting_conditioning", "version",
}  # fmt: skip


def picture(size: tuple[int, int] = (64, 64), colour: str = "red", mode: str = "RGB") -> str:
    content = io.BytesIO()
    Image.new(mode, size, colour).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def post(client: TestClient, route: str, status: int = 200, /, **body: Any) -> Any:
    answer = client.post(f"{API}/{route}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def draw(client: TestClient, status: int = 200, /, **body: Any) -> Any:
    return post(client, "txt2img", status, **{"prompt": "a red house", "steps": 2, **body})


def test_words_become_pictures_with_their_infotext(shared: TestClient) -> None:
    answer = draw(shared, seed=7, batch_size=2, n_iter=2, negative_prompt="fog", nonsense={"left": "alone"})
    assert set(answer) == {"images", "parameters", "info"}
    assert len(answer["images"]) == 4
    info = json.loads(answer["info"])
    assert set(info) == INFO
    assert (info["seed"], info["all_seeds"]) == (7, [7, 8, 9, 10])
    assert (info["index_of_first_image"], info["batch_size"], info["steps"]) == (0, 2, 2)
    assert (info["sd_model_name"], info["sd_model_hash"], info["width"]) == ("drawn-world", "5555555555", 64)
    for seed, encoded, text in zip(info["all_seeds"], answer["images"], info["infotexts"], strict=True):
        drawn = opened(encoded)
        assert (drawn.format, drawn.size) == ("PNG", (64, 64))
        assert drawn.info["parameters"] == text
        assert text.startswith("a red house\nNegative prompt: fog\nSteps: 2, ") and f"Seed: {seed}, " in text
    assert answer["parameters"]["batch_size"] == 2
    assert answer["parameters"]["cfg_scale"] == 7.0
    assert "nonsense" not in answer["parameters"]


def test_the_same_seed_gives_the_same_picture(shared: TestClient) -> None:
    first, again, other = (draw(shared, seed=seed)["images"][0] for seed in (3, 3, 4))
    assert first == again != other
    chosen = json.loads(draw(shared, seed=-1)["info"])["seed"]
    assert 0 <= chosen < 2**32


def test_pictures_are_sent_in_the_format_of_the_options(shared: TestClient) -> None:
    for asked, name in (("jpg", "JPEG"), ("webp", "WEBP")):
        sent = opened(draw(shared, override_settings={"samples_format": asked})["images"][0])
        assert sent.format == name
        read = post(shared, "png-info", image=base64.b64encode(_file(sent)).decode())
        assert read["parameters"]["Prompt"] == "a red house"
    assert draw(shared, send_images=False)["images"] == []


def _file(picture: Image.Image) -> bytes:
    assert picture.fp is not None
    picture.fp.seek(0)
    return picture.fp.read()


def test_a_picture_becomes_another_and_is_not_sent_back(shared: TestClient) -> None:
    body = {"prompt": "a blue house", "steps": 4, "seed": 1, "width": 64, "height": 64}
    answer = post(shared, "img2img", init_images=[picture()], mask=picture(colour="white", mode="L"), **body)
    assert (answer["parameters"]["init_images"], answer["parameters"]["mask"]) == (None, None)
    assert answer["parameters"]["denoising_strength"] == 0.75
    other = post(shared, "img2img", init_images=[f"data:image/png;base64,{picture(colour='blue')}"], **body)
    assert answer["images"] != other["images"]
    kept = post(shared, "img2img", init_images=[picture()], include_init_images=True, **body)
    assert kept["parameters"]["init_images"] == [picture()]


def test_a_mask_may_be_drawn_on_transparency_and_is_rounded(start: Any) -> None:
    client = start()
    soft = Image.linear_gradient("L").resize((64, 64))
    drawn = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    drawn.paste((0, 0, 0, 255), (0, 33, 64, 64))  # what is opaque is meant, whatever its colour
    seen = []
    for mask in (soft, drawn):
        content = io.BytesIO()
        mask.save(content, "PNG")
        encoded = base64.b64encode(content.getvalue()).decode()
        post(client, "img2img", init_images=[picture()], mask=encoded, prompt="x", steps=1, width=64, height=64)
        (job,) = client.service.jobs(limit=1)[0]
        seen.append(Image.open(client.service.pixels_place(job.request["mask"])[0]))
    for mask in seen:
        assert mask.mode == "L"
        assert set(mask.tobytes()) == {0, 255}
    assert seen[1].getbbox() == (0, 33, 64, 64)


WRONG = [
    ("txt2img", {"prompt": "<lora:nonsense:1>"}, 422, "no lora's name"),
    ("txt2img", {"prompt": "<hypernet:nonsense:1>"}, 422, "hypernetwork"),
    ("txt2img", {"sampler_name": "nonsense"}, 404, "Sampler not found"),
    ("txt2img", {"override_settings": {"sd_model_checkpoint": "nonsense"}}, 404, "Model not found"),
    ("txt2img", {"steps": 0}, 422, "steps is 0"),
    ("txt2img", {"width": 8}, 422, "width is 8"),
    ("txt2img", {"steps": "many"}, 422, "steps is 'many'"),
    ("txt2img", {"alwayson_scripts": {"nonsense": {"args": []}}}, 422, "always on script nonsense not found"),
    ("txt2img", {"script_name": "nonsense"}, 422, "Script 'nonsense' not found"),
    ("img2img", {}, 404, "Init image not found"),
    ("img2img", {"init_images": ["?"]}, 422, "Invalid encoded image"),
    ("img2img", {"init_images": ["http://localhost/x.png"]}, 422, "requests are not allowed"),
    ("img2img", {"init_images": [base64.b64encode(b"no picture").decode()]}, 415, "no PNG, JPEG or WebP"),
    ("img2img", {"init_images": [picture()], "mask": picture((32, 32))}, 422, "they must be of one size"),
    ("interrogate", {"image": picture()}, 501, "no model that captions"),
    ("extra-single-image", {"image": picture(), "upscaler_1": "nonsense"}, 422, "there are None, Lanczos, Nearest"),
    ("extra-single-image", {"image": picture(), "gfpgan_visibility": 1}, 422, "no face restorers"),
    ("extra-single-image", {"image": picture(), "upscaler_1": "Nearest", "upscaling_resize": 99}, 422, "40000000"),
    ("extra-single-image", {"image": picture(), "upscaler_1": "Nearest", "upscaling_resize": 1e308}, 422, "at most"),
]


@pytest.mark.parametrize(("route", "body", "status", "words"), WRONG)
def test_what_is_wrong_is_said_as_a1111_says_it(
    shared: TestClient, route: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = post(shared, route, status, **body)
    assert set(answer) == {"error", "detail", "body", "errors"}
    assert words in answer["errors"]
    if status == 422:
        (detail,) = answer["detail"]
        assert detail["loc"][0] == "body" and detail["loc"][1] in answer["errors"]
    else:
        assert answer["detail"] == answer["errors"]


@pytest.mark.parametrize("route", ["/sdapi/v1/nonsense", "/sdapi/v1/txt2img", "/controlnet/txt2img"])
def test_what_is_not_there_is_told_in_json(shared: TestClient, route: str) -> None:
    answer = shared.get(route)
    assert answer.status_code == 404 and answer.json()["detail"] == f"Not Found: GET {route}"


def test_a_body_that_is_no_object_is_refused(shared: TestClient) -> None:
    for content in (b"[", b"[]", b"3"):
        answer = shared.post(f"{API}/txt2img", content=content)
        assert answer.status_code == 422 and "the body" in answer.json()["errors"]


def test_a_failed_job_is_a_500_without_its_secrets(shared: TestClient) -> None:
    answer = draw(shared, 500, prompt="broken")
    assert "secret" not in json.dumps(answer)


LISTS: dict[str, Any] = {
    "sd-models": {"title", "model_name", "hash", "sha256", "filename", "config"},
    "samplers": {"name", "aliases", "options"},
    "schedulers": {"name", "label", "aliases", "default_rho", "need_inner_model"},
    "upscalers": {"name", "model_name", "model_path", "model_url", "scale"},
    "latent-upscale-modes": {"name"},
}


@pytest.mark.parametrize("route", LISTS)
def test_lists_have_a1111s_fields(shared: TestClient, route: str) -> None:
    found = shared.get(f"{API}/{route}").json()
    assert found and all(set(each) == LISTS[route] for each in found)


@pytest.mark.parametrize(
    "route",
    [
        "sd-vae",
        "sd-modules",
        "loras",
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "prompt-styles",
        "script-info",
        "extensions",
    ],
)
def test_lists_of_what_there_is_none_of_are_lists(shared: TestClient, route: str) -> None:
    assert isinstance(shared.get(f"{API}/{route}").json(), list)


def test_other_answers_that_clients_ask_for_have_their_shape(shared: TestClient) -> None:
    assert shared.get(f"{API}/embeddings").json() == {"loaded": {}, "skipped": {}}
    assert set(shared.get(f"{API}/scripts").json()) == {"txt2img", "img2img"}
    assert shared.get(f"{API}/cmd-flags").json()["api"] is True
    memory = shared.get(f"{API}/memory").json()
    assert memory["ram"]["used"] + memory["ram"]["free"] == memory["ram"]["total"] > 2**20
    assert set(memory) == {"ram", "cuda"}
    for route in ("refresh-checkpoints", "refresh-vae", "refresh-loras", "reload-checkpoint", "unload-checkpoint"):
        assert post(shared, route) == {}
    assert shared.get("/internal/ping").json() == {}
    assert shared.get("/controlnet/version").json() == {"version": 3}
    assert shared.get("/controlnet/model_list").json() == {"model_list": []}
    modules = shared.get("/controlnet/module_list").json()
    assert "canny" in modules["module_list"] and set(modules["module_detail"]) == set(modules["module_list"])
    assert set(shared.get("/controlnet/control_types").json()["control_types"]["All"]) == {
        "module_list", "model_list", "default_option", "default_model",
    }  # fmt: skip


def test_options_are_kept_and_wrong_ones_change_nothing(start: Any, settings: Any) -> None:
    client = start()
    options = client.get(f"{API}/options").json()
    assert options["sd_model_checkpoint"] == client.get(f"{API}/sd-models").json()[0]["title"]
    assert (options["samples_format"], options["CLIP_stop_at_last_layers"], options["sd_vae"]) == (
        "png",
        1,
        "Automatic",
    )
    assert post(client, "options", CLIP_stop_at_last_layers=2, nonsense=1) is None
    assert post(client, "options", 500, sd_model_checkpoint="nonsense")["errors"] == "model 'nonsense' not found"
    post(client, "options", 422, CLIP_stop_at_last_layers=3, token_merging_ratio=0.5)
    assert post(client, "options", **options) is None  # a page sends back all that it was told
    assert post(client, "options", CLIP_stop_at_last_layers=2) is None
    assert json.loads(draw(client)["info"])["clip_skip"] == 2
    assert json.loads(draw(client, override_settings={"CLIP_stop_at_last_layers": 1})["info"])["clip_skip"] == 1
    kept = json.loads((Path(settings.data) / "a1111-options.json").read_text())
    assert kept["CLIP_stop_at_last_layers"] == 2


def start_with(name: str, kind: Kind, start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server beside a file of a kind that has a name, and nothing in it."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    save_file({"nothing.weight": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    add_alias(name, tmp_path / f"{name}.safetensors", kind=kind)
    return start()


def test_networks_that_enlarge_are_listed_for_hires_fix_alone(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_with("fine", "upscaler", start, tmp_path, monkeypatch)
    listed = client.get(f"{API}/upscalers").json()
    assert [(each["name"], each["model_name"]) for each in listed[-2:]] == [("Nearest", None), ("fine", "fine")]
    hires = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.5}
    (drawn,) = draw(client, hr_upscaler="fine", **hires)["images"]
    assert opened(drawn).size == (64, 64)  # the stub draws no second pass
    refused = post(client, "extra-single-image", 422, image=picture(), upscaler_1="fine")
    assert "networks in hires fix alone" in refused["detail"][0]["msg"]


def test_all_options_may_be_sent_back(shared: TestClient) -> None:
    """As Open WebUI does to choose a model."""
    options = shared.get("/sdapi/v1/options").json()
    assert shared.post("/sdapi/v1/options", json=options).status_code == 200
    assert shared.get("/sdapi/v1/options").json() == options


def test_options_of_null_are_the_defaults_again(start: Any, settings: Any) -> None:
    file = Path(settings.data) / "a1111-options.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"CLIP_stop_at_last_layers": None, "randn_source": None}))  # as they once were kept
    client = start()
    draw(client)
    names = ("CLIP_stop_at_last_layers", "eta_noise_seed_delta", "randn_source", "samples_format")
    assert post(client, "options", CLIP_stop_at_last_layers=2, eta_noise_seed_delta=3, grid_save=True) is None
    assert post(client, "options", **dict.fromkeys(names)) is None
    assert json.loads(file.read_text()) == {"grid_save": True}
    assert json.loads(draw(client)["info"])["clip_skip"] == 1
    for wrong in ("abc", -1, 2**64):
        post(client, "options", 422, eta_noise_seed_delta=wrong)


def test_a_pictures_own_text_is_read_back(shared: TestClient) -> None:
    sent = draw(shared, seed=5, prompt='a "red", house: new')
    read = post(shared, "png-info", image=f"data:image/png;base64,{sent['images'][0]}")
    assert read["info"] == json.loads(sent["info"])["infotexts"][0]
    assert (read["parameters"]["Prompt"], read["parameters"]["Seed"]) == ('a "red", house: new', "5")
    assert post(shared, "png-info", image=picture()) == {"info": "", "items": {}, "parameters": {}}
    again = draw(shared, prompt=None, steps=None, infotext=read["info"])
    assert json.loads(again["info"])["infotexts"] == [read["info"]] and again["images"] == sent["images"]


def test_extras_scale_a_picture_and_keep_its_text(shared: TestClient) -> None:
    sent = draw(shared, seed=5)["images"][0]
    scaled = post(shared, "extra-single-image", image=sent, upscaler_1="Lanczos", upscaling_resize=1.5)
    assert opened(scaled["image"]).size == (96, 96)
    assert opened(scaled["image"]).info["parameters"] == opened(sent).info["parameters"]
    assert "Lanczos" in scaled["html_info"]
    body = {"upscaler_1": "Nearest", "resize_mode": 1, "upscaling_resize_w": 128, "upscaling_resize_h": 64}
    images = [{"data": picture(), "name": "a"}, {"data": picture((32, 64)), "name": "b"}]
    batch = post(shared, "extra-batch-images", imageList=images, **body)
    assert [opened(each).size for each in batch["images"]] == [(128, 64), (128, 64)]
    loose = post(shared, "extra-single-image", image=picture(), upscaling_crop=False, **body)
    assert opened(loose["image"]).size == (128, 128)
    assert opened(post(shared, "extra-single-image", image=picture())["image"]).size == (64, 64)  # upscaler None


def test_what_a_control_network_would_see_is_shown(shared: TestClient) -> None:
    half = Image.new("RGB", (64, 64))
    half.paste((255, 255, 255), (32, 0, 64, 64))
    content = io.BytesIO()
    half.save(content, "PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    body = {"controlnet_module": "canny", "controlnet_images": [encoded], "controlnet_threshold_a": 50}
    found = shared.post("/controlnet/detect", json=body).json()
    assert found["info"] == "Success"
    edges = opened(found["images"][0]).convert("L").getbbox()
    assert edges is not None and 30 <= edges[0] <= edges[2] <= 34  # the one edge that is there
    inverted = shared.post(
        "/controlnet/detect", json={"controlnet_module": "invert", "controlnet_input_images": [encoded]}
    )
    assert opened(inverted.json()["images"][0]).getpixel((0, 0)) == (255, 255, 255)
    for wrong, field in (({"controlnet_module": "openpose"}, "controlnet_module"), ({}, "controlnet_input_images")):
        refused = shared.post("/controlnet/detect", json=wrong)
        assert refused.status_code == 422 and refused.json()["detail"][0]["loc"] == ["body", field]


def running(client: TestClient, **body: Any) -> tuple[threading.Thread, dict[str, Any]]:
    """A client that draws slowly in another thread, when its job has begun."""
    result: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: result.update(draw(client, prompt="slow", **body)))
    thread.start()
    deadline = time.monotonic() + 20
    while client.get(f"{API}/progress").json()["state"]["sampling_step"] < 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return thread, result


def test_what_control_networks_saw_follows_the_pictures(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the extension hands it back, unless an option says no: at the size of the pictures, black where no edge is."""
    client = start_with("edges", "controlnet", start, tmp_path, monkeypatch)
    unit = {"model": "edges", "image": picture((96, 48))}
    units = {"ControlNet": {"args": [unit | {"module": "canny"}, unit]}}
    answer = draw(client, seed=7, n_iter=2, alwayson_scripts=units)
    drawn, edges, whole = answer["images"][:2], opened(answer["images"][2]), opened(answer["images"][3])
    assert len(answer["images"]) == 4 and json.loads(answer["info"])["all_seeds"] == [7, 8]
    assert (edges.size, whole.size) == ((64, 64), (64, 64))
    assert edges.convert("L").getextrema() == (0, 0)
    assert whole.convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    silent = {"control_net_no_detectmap": True}
    assert draw(client, seed=7, n_iter=2, alwayson_scripts=units, override_settings=silent)["images"] == drawn
    own = {"ControlNet": {"args": [{"model": "edges", "module": "invert"}]}}
    over = post(client, "img2img", init_images=[picture()], prompt="x", steps=2, alwayson_scripts=own)
    assert opened(over["images"][1]).convert("RGB").getpixel((5, 5)) == (0, 255, 255)  # it sees the start picture


def test_progress_is_told_while_a_job_runs_and_ends(client: TestClient) -> None:
    idle = client.get(f"{API}/progress").json()
    assert (idle["progress"], idle["eta_relative"], idle["state"]["job_count"]) == (0, 0, 0)
    assert set(idle) == {"progress", "eta_relative", "state", "current_image", "textinfo", "current_task"}
    thread, _ = running(client, steps=40, n_iter=2, force_task_id="task(me)")
    seen = []
    while thread.is_alive():
        seen.append(client.get(f"{API}/progress").json())
        task = client.post("/internal/progress", json={"id_task": "task(me)"}).json()
        time.sleep(0.05)
    busy = [each for each in seen if each["state"]["job_count"]]
    shares = [each["progress"] for each in busy]
    assert shares == sorted(shares) and 0 < shares[0] < 0.6 and shares[-1] > 0.7
    assert all(each["state"]["job_count"] == 2 and each["state"]["sampling_steps"] == 40 for each in busy)
    assert {each["state"]["job_no"] for each in busy} == {0, 1}
    pictured = [each["current_image"] for each in busy if each["current_image"]]
    assert pictured and opened(pictured[-1]).format == "PNG"
    assert set(task) == {
        "active", "queued", "completed", "progress", "eta", "live_preview", "id_live_preview", "textinfo",
    }  # fmt: skip
    assert client.post("/internal/progress", json={"id_task": "task(me)"}).json()["completed"] is True
    assert client.get(f"{API}/progress?skip_current_image=true").json()["current_image"] is None
    assert client.get("/internal/pending-tasks").json() == {"size": 0, "tasks": []}


def test_an_interrupt_keeps_what_was_drawn(client: TestClient) -> None:
    assert post(client, "interrupt") == {}  # nothing runs
    thread, result = running(client, steps=60, n_iter=5, seed=1)
    assert post(client, "interrupt") == {}
    thread.join(10)
    assert len(result["images"]) == 1
    assert json.loads(result["info"])["all_seeds"] == [1]


def test_a_skip_goes_on_with_the_next_pictures(client: TestClient) -> None:
    thread, result = running(client, steps=30, n_iter=2, seed=1)
    post(client, "skip")
    thread.join(10)
    assert json.loads(result["info"])["all_seeds"] == [1, 2]
    assert client.service.jobs(limit=1)[0][0].state == "done"  # type: ignore[attr-defined]


def test_an_interrupt_leaves_the_jobs_of_others_alone(client: TestClient) -> None:
    native = client.post("/sfumato/v1/jobs", json={"request": {"prompt": "slow", "steps": 20}}).json()
    while client.get(f"/sfumato/v1/jobs/{native['id']}").json()["state"] == "queued":
        time.sleep(0.02)
    post(client, "interrupt")
    deadline = time.monotonic() + 10
    while (job := client.get(f"/sfumato/v1/jobs/{native['id']}").json())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert job["state"] == "done" and len(job["pictures"]) == 1


def test_a_token_is_asked_for_as_bearer_or_basic(start: Any) -> None:
    token = "a long enough token"
    client = start(token=token)
    refused = client.get(f"{API}/options")
    assert refused.status_code == 401 and "Basic" in refused.headers["www-authenticate"]
    assert client.get(f"{API}/options", auth=("anybody", token)).status_code == 200
    assert client.get(f"{API}/options", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert client.get(f"{API}/options", auth=("anybody", "wrong")).status_code == 401


def test_a_job_is_drawn_although_its_client_has_gone(client: TestClient) -> None:
    assert state_after_hanging_up(client, f"{API}/txt2img", {"prompt": "slow", "steps": 40}) == "done"
