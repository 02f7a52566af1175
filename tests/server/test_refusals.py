"""What cannot work is refused when it is posted, under the API's own name of the field: there is no job then."""

import base64
import io
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

API = "/sfumato/v1"


def picture() -> str:
    """A white picture as base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = picture()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"eta": 0.5, "sampler": "PLMS"}, "eta"),
        ({"clip_skip": 12}, "clip_skip"),
        ({"steps": 101, "hires": {"scale": 2, "strength": 0.1, "strength_rule": "whole"}}, "steps"),
        ({"tiling": "x", "width": 72}, "width"),
        ({"perturbed_attention": {"layers": ["nose"]}}, "perturbed_attention.layers"),
        ({"self_attention_guidance": True, "width": 32}, "self_attention_guidance"),
        ({"original_size": [64, 64]}, "original_size"),
        ({"image_guidance": 1.5}, "image_guidance"),
        ({"hires": {"scale": 2, "prompt": "<lora:ink:1>"}}, "hires.prompt"),
        ({"hires": {"scale": 2, "upscaler": "none"}}, "hires"),
        ({"hires": {"size": [64, 64], "sampler": "none"}}, "hires"),
        ({"prompt": "(x:1.2.3)"}, "prompt"),
        ({"negative_prompt": "(x:1.2.3)"}, "prompt"),
        ({"prompt": "__none__"}, "prompt"),
        ({"styles": ["none"]}, "styles"),
        ({"embeddings": ["none"]}, "embeddings"),
        ({"masked_content": "fill"}, "masked_content"),
        ({"windows": True, "apg": {"momentum": -0.5}}, "windows"),
    ],
)
def test_a_request_that_cannot_work_is_refused(shared: TestClient, request_: dict[str, Any], field: str) -> None:
    answer = shared.post(f"{API}/jobs", json={"request": {"prompt": "x", **request_}})
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert shared.get(f"{API}/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"override_settings": {"CLIP_stop_at_last_layers": 20}}, "CLIP_stop_at_last_layers"),
        ({"tiling": True, "width": 72, "height": 64}, "width"),
        ({"prompt": "(x:1.2.3)"}, "prompt"),
        ({"prompt": "<lora:none:1>"}, "prompt"),
        ({"enable_hr": True, "hr_prompt": "(x:1.2.3)"}, "prompt"),
        ({"enable_hr": True, "hr_upscaler": "none"}, "hr_upscaler"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "none", "image": "x"}]}}}, "alwayson_scripts"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "none", "image": PICTURE}]}}}, "model"),
    ],
)
def test_a1111_has_it_refused_under_its_own_name(shared: TestClient, body: dict[str, Any], field: str) -> None:
    answer = shared.post("/sdapi/v1/txt2img", json={"prompt": "x", "sampler_name": "Euler", "steps": 2, **body})
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", field], answer.text
    assert shared.get(f"{API}/jobs").json()["jobs"] == []


def test_a1111s_own_masking_is_refused_where_the_model_cannot(shared: TestClient) -> None:
    body = {"prompt": "x", "init_images": [PICTURE], "mask": PICTURE, "sampler_name": "Euler"}
    body["override_settings"] = {"sfumato_masking": "network"}  # type: ignore[assignment]
    answer = shared.post("/sdapi/v1/img2img", json=body)
    assert (answer.status_code, answer.json()["detail"][0]["loc"][1]) == (422, "sfumato_masking"), answer.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"clip_skip": 12}, "clip_skip"),
        ({"prompt": "(x:1.2.3)"}, "prompt"),
        ({"size": "72x64", "tiling": "x"}, "size"),
        ({"eta": 0.5, "sampler": "PLMS"}, "eta"),
        ({"loras": ["none"]}, "loras"),
    ],
)
def test_openai_has_it_refused_by_its_parameter(shared: TestClient, body: dict[str, Any], param: str) -> None:
    answer = shared.post("/v1/images/generations", json={"prompt": "x", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert shared.get(f"{API}/jobs").json()["jobs"] == []
