"""What a request names beside its model is refused when it is posted, as the engine would, by the real program."""

import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient
from test_refusals import PICTURE

from sfumato.errors import RequestError
from sfumato.nn.clip_vision import ImageEncoder, VisionConfig
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.request import Request
from sfumato.server.beside import Beside
from sfumato.server.describe import refused
from sfumato.server.settings import Settings
from sfumato.weights.load import hollow, open_model
from sfumato.weights.locate import add_alias

API = "/sfumato/v1"
TOWER = VisionConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, projection_dim=24, image_size=28
)


class Evil:
    """What a pickle from a stranger may hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/sfumato-was-here",)


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(each.shape, dtype=torch.float16) for name, each in network.state_dict().items()}


def image_prompt_of(folder: Path, context: int) -> None:
    adapter = IPAdapter(IPAdapterConfig("plain", 24, context, (16, 16), 4))
    save_file(weights(adapter), folder / f"ip-{context}.safetensors")
    tower = folder / "image_encoder"
    tower.mkdir(exist_ok=True)
    save_file(weights(ImageEncoder(TOWER)), tower / "model.safetensors")
    (tower / "config.json").write_text(str(TOWER.to_json()).replace("'", '"'))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files of all kinds, some of them for the embedded model, with names in a registry of their own."""
    folder = tmp_path_factory.mktemp("beside")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_HOME", str(folder / "home"))
        unet = hollow(open_model(None), "x").unet
        save_file(weights(ControlNet.of(unet)), folder / "edges.safetensors")
        save_file(weights(T2IAdapter(T2IAdapterConfig(channels=(32, 64)))), folder / "small.safetensors")
        save_file({"w": torch.zeros(1, 768)}, folder / "wide.safetensors")
        save_file({"w": torch.zeros(1, 192)}, folder / "word.safetensors")
        image_prompt_of(folder, 768)
        (folder / "evil.pt").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
        named = {"edges": "controlnet", "small": "controlnet", "wide": "embedding", "word": "embedding"}
        for name, kind in named.items():
            add_alias(name, folder / f"{name}.safetensors", kind=kind)  # type: ignore[arg-type]
        add_alias("ip", folder / "ip-768.safetensors", kind="controlnet")
        for kind in ("lora", "embedding", "controlnet", "vae"):
            add_alias(f"evil-{kind}", folder / "evil.pt", kind=kind)  # type: ignore[arg-type]
        yield folder


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"controls": [{"model": "edges", "image": "x", "task": "depth"}]}, "controls", "one kind of pictures"),
        ({"controls": [{"model": "small", "image": "x", "mode": "guess"}]}, "controls", "does not fit"),
        ({"controls": [{"model": "ip", "image": "x"}]}, "controls", "give it as an image prompt"),
        ({"image_prompts": [{"model": "ip", "images": ["x"]}]}, "image_prompts", "192 features"),
        ({"image_prompts": [{"model": "edges", "images": ["x"], "encoder": "ip"}]}, "image_prompts", "a ControlNet"),
        ({"embeddings": [["wide", "w"]]}, "embeddings", "[768] features"),
        ({"loras": ["evil-lora"]}, "loras", "mkdir"),
        ({"prompt": "a <lora:evil-lora:1>"}, "loras", "mkdir"),
        ({"embeddings": [["evil-embedding", "w"]]}, "embeddings", "mkdir"),
        ({"controls": [{"model": "evil-controlnet", "image": "x"}]}, "controls", "mkdir"),
        ({"vae": "evil-vae"}, "vae", "mkdir"),
    ],
)
def test_the_child_refuses_what_does_not_go_with_the_model(
    folder: Path, fields: dict[str, Any], field: str, told: str
) -> None:
    found = refused(Request(**{"prompt": "x", "seed": 1, "model": "drawn-world", **fields}))
    assert found is not None and found["field"] == field and told in found["detail"], found
    assert not Path("/tmp/sfumato-was-here").exists()


def test_it_passes_what_does(folder: Path) -> None:
    controls = [{"model": "edges", "image": "x", "mode": "guess"}]
    request = Request(prompt="x", seed=1, model="drawn-world", controls=controls, embeddings=[["word", "w"]])  # type: ignore[arg-type]
    assert refused(request) is None


def test_a_job_is_refused_by_the_real_program_and_taken_once_it_passes(folder: Path, settings: Settings) -> None:
    beside = Beside(replace(settings, program=(sys.executable, "-m", "sfumato.server.worker")))
    card = {"name": "drawn-world", "hash": "h"}
    wide = Request(prompt="x", seed=1, embeddings=[["wide", "w"]])  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"wide\.safetensors does not fit") as caught:
        beside.check(wide, card, {("embedding", "wide"): folder / "wide.safetensors"})
    assert caught.value.field == "embeddings" and str(folder) not in str(caught.value)
    word = Request(prompt="x", seed=1, embeddings=[["word", "w"]])  # type: ignore[arg-type]
    beside.check(word, card, {("embedding", "word"): folder / "word.safetensors"})
    again = Beside(replace(settings, program=("there is no such program",)))
    again._passed = beside._passed
    again.check(word, card, {("embedding", "word"): folder / "word.safetensors"})  # without a child


def test_every_api_tells_it_by_its_own_name(shared: TestClient, folder: Path) -> None:
    answer = shared.post(f"{API}/jobs", json={"request": {"prompt": "unfit-loras", "loras": ["evil-lora"]}})
    assert (answer.status_code, answer.json()["field"]) == (422, "loras"), answer.text
    assert answer.json()["detail"] == "loras: x.pt does not fit"
    body = {"prompt": "unfit-controls", "sampler_name": "Euler"}
    unit = {"model": "small", "image": PICTURE}
    answer = shared.post("/sdapi/v1/txt2img", json={**body, "alwayson_scripts": {"ControlNet": {"args": [unit]}}})
    assert answer.status_code == 422 and "does not fit" in answer.json()["detail"][0]["msg"], answer.text
    answer = shared.post("/v1/images/generations", json={"prompt": "unfit-loras", "loras": ["evil-lora"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "loras"), answer.text
    assert shared.get(f"{API}/jobs").json()["jobs"] == []
