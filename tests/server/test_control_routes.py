"""Pictures that steer, over HTTP: which networks there are and what for, and what a network sees of a picture."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from starlette.testclient import TestClient

from sfumato.controls.preprocess import preprocess
from sfumato.fitting import RESIZES
from sfumato.request import PREPROCESSORS, TASKS, ResizeMode, checked_options
from sfumato.weights.locate import add_alias

API = "/sfumato/v1"


def scene(width: int = 90, height: int = 60) -> Image.Image:
    levels = np.random.default_rng(3).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def uploaded(client: TestClient, picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return str(client.post(f"{API}/uploads", content=file.getvalue()).json()["id"])


@pytest.mark.parametrize("preprocessor", [name for name in PREPROCESSORS])
def test_what_is_shown_is_what_the_engine_gives_a_network(shared: TestClient, preprocessor: str) -> None:
    picture = scene()
    body = {"image": uploaded(shared, picture), "preprocessor": preprocessor, "width": 64, "height": 64}
    answer = shared.post(f"{API}/preprocess", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    expected = preprocess(RESIZES["crop"](picture, 64, 64), preprocessor, checked_options(preprocessor, {}))
    assert Image.open(io.BytesIO(answer.content)).convert("RGB").tobytes() == expected.convert("RGB").tobytes()


@pytest.mark.parametrize("resize", ["crop", "stretch", "fill"])
def test_a_picture_takes_the_size_as_it_is_asked(shared: TestClient, resize: ResizeMode) -> None:
    picture = scene()
    body = {"image": uploaded(shared, picture), "width": 48, "height": 96, "resize": resize}
    shown = Image.open(io.BytesIO(shared.post(f"{API}/preprocess", json=body).content))
    assert shown.tobytes() == RESIZES[resize](picture, 48, 96).tobytes()
    own = shared.post(f"{API}/preprocess", json={"image": body["image"]})
    assert Image.open(io.BytesIO(own.content)).size == picture.size


def test_nothing_of_what_is_shown_is_kept(client: TestClient) -> None:
    image = uploaded(client, scene())
    uploads: Path = client.service.folders.uploads  # type: ignore[attr-defined]
    before = sorted(uploads.iterdir())
    client.post(f"{API}/preprocess", json={"image": image, "preprocessor": "invert"})
    assert sorted(uploads.iterdir()) == before


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"image": "sha256:" + "0" * 64}, 404, "no such picture"),
        ({"preprocessor": "cany"}, 422, "did you mean 'canny'"),
        ({"preprocessor": "canny", "options": {"hi": 3}}, 422, "those of canny are: low, high"),
        ({"preprocessor": "canny", "options": {"low": -1}}, 422, "from 0 to 1000"),
        ({"width": 9}, 422, "greater than or equal to 16"),
        ({"resize": "bend"}, 422, "crop"),
    ],
)
def test_what_is_wrong_is_said(shared: TestClient, body: dict[str, Any], status: int, told: str) -> None:
    answer = shared.post(f"{API}/preprocess", json={"image": uploaded(shared, scene()), **body})
    assert answer.status_code == status
    assert told in answer.json()["detail"]


def test_too_much_is_refused_in_words_and_not_by_the_servers_memory(shared: TestClient) -> None:
    body = {"image": uploaded(shared, scene()), "preprocessor": "canny", "width": 8192, "height": 8192}
    answer = shared.post(f"{API}/preprocess", json=body)
    assert answer.status_code in (413, 422)
    assert "too large" in answer.json()["detail"] or "took too long" in answer.json()["detail"]


def test_the_preprocessors_are_those_of_a_request(shared: TestClient) -> None:
    told = shared.get(f"{API}/preprocessors").json()
    found = {
        each["name"]: {of["name"]: (of["default"], of["low"], of["high"]) for of in each["options"]}
        for each in told["preprocessors"]
    }
    assert found == PREPROCESSORS
    assert told["tasks"] == list(TASKS)


def test_networks_are_listed_with_what_they_are_for(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    tensors = {"pose": "controlnet_cond_embedding.conv_in.weight", "like-this": "ip_adapter.1.to_k_ip.weight"}
    for name, tensor in tensors.items():
        save_file({tensor: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
        add_alias(name, tmp_path / f"{name}.safetensors", kind="controlnet")
    for name in ("ip-adapter_sd15.bin", "sketch.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not opened")
        add_alias(name, tmp_path / name, kind="controlnet")
    listed = start().get(f"{API}/controls").json()["controls"]
    assert {each["name"]: each["role"] for each in listed} == {
        "pose": "control",
        "like-this": "image_prompt",
        "ip-adapter_sd15.bin": "image_prompt",
        "sketch.pth": "control",
        "broken.safetensors": "control",
    }
    assert all(each["size_bytes"] > 0 for each in listed)


def test_styles_are_listed_with_their_words(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\nink,an ink drawing of {prompt},colour\n")
    assert start().get(f"{API}/styles").json() == {
        "styles": [{"name": "ink", "prompt": "an ink drawing of {prompt}", "negative_prompt": "colour"}]
    }
