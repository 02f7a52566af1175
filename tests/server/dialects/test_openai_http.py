"""OpenAI's routes over a stub that draws: answers, errors, streams, forms. Shapes are its client's types."""

import base64
import io
import json
import threading
import time
from typing import Any

import pytest
from hanging_up import state_after_hanging_up
from PIL import Image
from starlette.testclient import TestClient


def png(size: tuple[int, int] = (64, 64), colour: Any = "red", mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, size, colour).save(content, "PNG")
    return content.getvalue()


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def generate(client: TestClient, status: int = 200, /, **body: Any) -> Any:
    answer = client.post("/v1/images/generations", json={"prompt": "a red house", **body})
    assert answer.status_code == status, answer.text
    return answer.json()


def form(client: TestClient, route: str, files: list[tuple[str, bytes]], status: int = 200, /, **fields: str) -> Any:
    parts = [(name, (f"{name}.png", content, "image/png")) for name, content in files]
    answer = client.post(f"/v1/images/{route}", data=fields, files=parts)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_words_become_pictures(shared: TestClient) -> None:
    answer = generate(shared, n=2, seed=7, size="64x32", output_format="jpeg", output_compression=50)
    assert abs(answer["created"] - time.time()) < 60
    assert (answer["output_format"], answer["size"], answer["background"]) == ("jpeg", "64x32", "opaque")
    assert [opened(each["b64_json"]).size for each in answer["data"]] == [(64, 32)] * 2
    assert opened(answer["data"][0]["b64_json"]).format == "JPEG"
    tokens = answer["usage"]
    assert tokens["input_tokens"] == tokens["input_tokens_details"]["text_tokens"] == 3
    assert generate(shared, seed=7, size="64x32")["data"] != generate(shared, seed=8, size="64x32")["data"]


def test_an_address_leads_to_the_picture(shared: TestClient) -> None:
    answer = generate(shared, response_format="url", output_format="webp", seed=1)
    (place,) = answer["data"]
    assert place["url"].startswith("http://127.0.0.1:7860/v1/images/files/") and place["url"].endswith(".webp")
    file = shared.get(place["url"])
    assert (file.status_code, file.headers["content-type"]) == (200, "image/webp")
    assert Image.open(io.BytesIO(file.content)).size == (64, 64)
    for name in ("nonsense.png", "../../etc/passwd", "x.svg"):
        assert shared.get(f"/v1/images/files/{name}").status_code == 404


@pytest.mark.parametrize("name", ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1.5", "chatgpt-image-latest"])
def test_openais_own_models_mean_the_servers(shared: TestClient, name: str) -> None:
    """Programs name them without being asked."""
    assert generate(shared, model=name, seed=1)["data"] == generate(shared, seed=1)["data"]


def test_models_are_listed_and_found(shared: TestClient) -> None:
    listed = shared.get("/v1/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("drawn-world", "model", "local")
    assert isinstance(model["created"], int)
    assert shared.get("/v1/models/drawn-world").json() == model
    missing = shared.get("/v1/models/dall-e-9")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def job_of(client: TestClient) -> Any:
    return client.service.jobs(limit=1)[0][0]  # type: ignore[attr-defined]


def pixels_of(client: TestClient, id: str) -> Image.Image:
    return Image.open(client.service.pixels_place(id)[0])  # type: ignore[attr-defined]


def test_an_edit_repaints_what_its_mask_leaves_transparent(client: TestClient) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (8, 8, 24, 40))
    content = io.BytesIO()
    mask.save(content, "PNG")
    form(client, "edits", [("image", png()), ("mask", content.getvalue())], prompt="a moon", n="2", seed="3")
    job = job_of(client)
    assert (job.api, job.request["count"], job.request["seed"]) == ("openai", 2, 3)
    found = pixels_of(client, job.request["mask"])
    assert (found.getbbox(), found.getextrema()) == ((8, 8, 24, 40), (0, 255))


def test_without_a_mask_the_pictures_own_transparency_counts(client: TestClient) -> None:
    picture = Image.new("RGBA", (64, 64), (200, 100, 0, 255))
    picture.paste((0, 100, 200, 0), (0, 0, 32, 64))
    content = io.BytesIO()
    picture.save(content, "PNG")
    form(client, "edits", [("image[]", content.getvalue())], prompt="a moon")
    request = job_of(client).request
    assert pixels_of(client, request["mask"]).getbbox() == (0, 0, 32, 64)
    assert pixels_of(client, request["image"]).getpixel((0, 0)) == (0, 100, 200)  # it begins with what is there


def test_a_variation_keeps_some_of_the_picture(client: TestClient) -> None:
    answer = form(client, "variations", [("image", png())], n="2")
    assert len(answer["data"]) == 2
    request = job_of(client).request
    assert (request["prompt"], request["strength"], request.get("mask")) == ("", 0.7, None)


WRONG = [
    ({"prompt": ""}, 400, "prompt", "missing_required_parameter"),
    ({"n": 50}, 400, "n", "invalid_value"),
    ({"size": "99999x99999"}, 400, "size", "invalid_value"),
    ({"model": "dall-e-9"}, 404, "model", "model_not_found"),
    ({"sampler": "nonsense"}, 400, "sampler", "invalid_value"),
    ({"nonsense": True}, 400, "nonsense", "unknown_parameter"),
]


@pytest.mark.parametrize(("body", "status", "param", "code"), WRONG)
def test_what_is_wrong_is_said_as_openai_says_it(
    shared: TestClient, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    error = generate(shared, status, **body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


def test_forms_that_are_wrong_are_refused(shared: TestClient) -> None:
    assert form(shared, "edits", [], 400, prompt="x")["error"]["code"] == "invalid_content_type"
    two = [("image[]", png()), ("image[]", png(colour="blue"))]
    assert form(shared, "edits", two, 400, prompt="x")["error"]["param"] == "image"
    assert form(shared, "edits", [("image", png())], 400)["error"]["param"] == "prompt"
    opaque = [("image", png()), ("mask", png(mode="RGBA", colour=(0, 0, 0, 255)))]
    assert "no fully transparent parts" in form(shared, "edits", opaque, 400, prompt="x")["error"]["message"]
    assert form(shared, "edits", [("image", b"no picture")], 400, prompt="x")["error"]["code"] == "invalid_image"
    small = [("image", png()), ("mask", png((32, 32), (0, 0, 0, 0), "RGBA"))]
    assert "of one size" in form(shared, "edits", small, 400, prompt="x")["error"]["message"]
    assert form(shared, "edits", [("nonsense", png())], 400, prompt="x")["error"]["code"] == "unknown_parameter"


@pytest.mark.parametrize("route", ["chat/completions", "images/nonsense", "embeddings"])
def test_what_is_not_there_is_told_in_openais_form(shared: TestClient, route: str) -> None:
    answer = shared.post(f"/v1/{route}", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


def test_a_body_that_is_no_object_is_refused(shared: TestClient) -> None:
    for content in (b"[", b"[]", b""):
        answer = shared.post("/v1/images/generations", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_failed_job_is_a_server_error(shared: TestClient) -> None:
    error = generate(shared, 500, prompt="broken")["error"]
    assert error["type"] == "server_error" and "secret" not in error["message"]


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("event: ")]
    return [
        (head.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for head, data in (block.split("\n") for block in blocks)
    ]


def test_a_stream_has_partial_images_and_then_the_picture(client: TestClient) -> None:
    body = {"prompt": "slow", "steps": 30, "stream": True, "partial_images": 2, "size": "64x64", "seed": 4}
    answer = client.post("/v1/images/generations", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [kind for kind, _ in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert all(kind == data["type"] for kind, data in events)
    assert [data.get("partial_image_index") for _, data in events] == [0, 1, None]
    fields = {"type", "b64_json", "background", "created_at", "output_format", "quality", "size"}
    assert all(fields <= set(data) for _, data in events)
    assert "usage" in events[-1][1]
    assert [opened(data["b64_json"]).size for _, data in events] == [(64, 64)] * 3
    plain = generate(client, prompt="slow", steps=30, size="64x64", seed=4)
    assert plain["data"][0]["b64_json"] == events[-1][1]["b64_json"]


def test_a_stream_of_an_edit_has_its_own_events_and_tells_a_failure(client: TestClient) -> None:
    parts = [("image", ("a.png", png(), "image/png"))]
    answer = client.post("/v1/images/edits", data={"prompt": "a", "stream": "true", "n": "2"}, files=parts)
    assert [kind for kind, _ in events_of(answer.text)] == ["image_edit.completed"] * 2
    failed = client.post("/v1/images/generations", json={"prompt": "broken", "stream": True})
    ((kind, data),) = events_of(failed.text)
    assert kind == "error" and data["error"]["type"] == "server_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_job_is_cancelled_once_and_not_in_the_loop_when_its_client_goes(
    client: TestClient, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Any = client.service  # type: ignore[attr-defined]
    cancel, loops, in_it = service.cancel, threading.get_ident(), []

    def watched(id: str) -> None:
        in_it.append(threading.get_ident() == loops)
        threading.Timer(1.2, cancel, [id]).start()  # a job that takes its time to end

    monkeypatch.setattr(service, "cancel", watched)
    body = {"prompt": "slow", "steps": 400, "stream": stream}
    assert state_after_hanging_up(client, "/v1/images/generations", body) == "cancelled"
    assert in_it == [False]


def test_a_stream_that_the_server_ends_says_so_and_leaves_the_job(client: TestClient) -> None:
    service: Any = client.service  # type: ignore[attr-defined]
    timer = threading.Timer(1.0, service.broker.close)
    timer.start()
    answer = client.post("/v1/images/generations", json={"prompt": "slow", "steps": 400, "stream": True})
    timer.join()
    ((kind, data),) = events_of(answer.text)
    assert (kind, data["error"]["code"]) == ("error", "stopping")
    (job,) = service.jobs(limit=1)[0]
    assert job.state in ("queued", "running") and not job.cancelling
