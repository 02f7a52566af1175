"""A file beside the model that its header shows to be damaged, or for another family, is refused when it is named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient

from sfumato.weights.locate import add_alias

API = "/sfumato/v1"
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
OLD = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora"
WIDTH = 64  # of the words that the stub's model reads
NAMES = [
    (f"unet.{LAYER}.lora_A.weight", f"unet.{LAYER}.lora_B.weight"),
    (f"unet.{LAYER}.lora.down.weight", f"unet.{LAYER}.lora.up.weight"),
    (f"base_model.model.{LAYER}.lora_A.default.weight", f"base_model.model.{LAYER}.lora_B.default.weight"),
    (f"{FLAT}.lora_down.weight", f"{FLAT}.lora_up.weight"),
    (f"{OLD}.down.weight", f"{OLD}.up.weight"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    return tmp_path


def lora(home: Path, names: tuple[str, str], width: int) -> None:
    save_file({names[0]: torch.zeros(2, width), names[1]: torch.zeros(320, 2)}, home / "x.safetensors")
    add_alias("ink", home / "x.safetensors", kind="lora")


def post(client: TestClient, **request: Any) -> Any:
    return client.post(f"{API}/jobs", json={"request": {"prompt": "x", **request}})


@pytest.mark.parametrize("names", NAMES)
def test_a_lora_of_another_family_is_refused(start: Any, home: Path, names: tuple[str, str]) -> None:
    lora(home, names, 768)
    client: TestClient = start()
    for request, field in (({"loras": ["ink"]}, "loras"), ({"prompt": "a <lora:ink:1>"}, "prompt")):
        answer = post(client, **request)
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
        assert "reads 768 features of text; this one reads 64" in answer.json()["detail"]


@pytest.mark.parametrize("names", NAMES)
def test_a_lora_of_the_models_family_is_taken(start: Any, home: Path, names: tuple[str, str]) -> None:
    lora(home, names, WIDTH)
    assert post(start(), loras=["ink"]).status_code == 202


@pytest.mark.parametrize("kind", ["lora", "embedding", "vae", "controlnet", "upscaler"])
def test_a_damaged_file_is_refused_without_its_folder(start: Any, home: Path, kind: Any) -> None:
    (home / "bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header at all")
    add_alias("bad", home / "bad.safetensors", kind=kind)
    requests: dict[str, dict[str, Any]] = {
        "lora": {"loras": ["bad"]},
        "embedding": {"embeddings": [["bad", "w"]]},
        "vae": {"vae": "bad"},
        "controlnet": {"controls": [{"model": "bad"}]},
        "upscaler": {"hires": {"scale": 2, "upscaler": "bad"}},
    }
    answer = post(start(), **requests[kind])
    assert (answer.status_code, answer.json()["field"]) == (422, next(iter(requests[kind]))), answer.text
    assert "cannot be used" in answer.json()["detail"] and str(home) not in answer.text


def test_a_controlnet_of_another_family_is_refused(start: Any, home: Path) -> None:
    save_file({f"down_blocks.0.attentions.0.{LAYER[22:]}.weight": torch.zeros(320, 768)}, home / "c.safetensors")
    add_alias("edges", home / "c.safetensors", kind="controlnet")
    answer = post(start(), controls=[{"model": "edges"}])
    assert (answer.status_code, answer.json()["field"]) == (422, "controls"), answer.text
