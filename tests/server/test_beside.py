"""What a request names beside its model is refused when it is posted, as the engine would, by the real program."""

import contextlib
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient
from test_refusals import PICTURE

from sfumato.engine import Engine
from sfumato.errors import RequestError
from sfumato.memory.need import Need
from sfumato.memory.shape import Shape
from sfumato.nn.change import changeable
from sfumato.nn.clip_vision import ImageEncoder, VisionConfig
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.nn.unet import UNet
from sfumato.request import Request
from sfumato.server.beside import Beside, Question
from sfumato.server.describe import looked_at
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


def refused(**fields: Any) -> dict[str, str] | None:
    """What the child says of a request's files."""
    request = Request(**{"prompt": "x", "seed": 1, "model": "drawn-world", **fields})
    found: dict[str, str] | None = looked_at({"request": request.to_dict()})["refused"]
    return found


def lora_of(unet: UNet, *more: str) -> dict[str, torch.Tensor]:
    """A LoRA of one of a UNet's layers, and of others that it has not."""
    path, layer = next((path, each) for path, each in changeable(unet).items() if path.endswith("attn2.to_q"))
    rows, columns = layer.weight.shape
    return {
        f"lora_unet_{name.replace('.', '_')}.lora_{half}.weight": torch.zeros(shape)
        for name in (path, *more)
        for half, shape in (("down", (2, columns)), ("up", (rows, 2)))
    }


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
        save_file(lora_of(unet), folder / "whole.safetensors")
        save_file(lora_of(unet, "mid_block.attentions.7.nose"), folder / "more.safetensors")
        image_prompt_of(folder, 768)
        (folder / "evil.pt").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
        named = {"edges": "controlnet", "small": "controlnet", "wide": "embedding", "word": "embedding"}
        named |= {"whole": "lora", "more": "lora"}
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
        ({"loras": ["more"]}, "loras", "2 of its tensors have no layer there"),
        ({"prompt": "a <lora:more:1>"}, "loras", "2 of its tensors have no layer there"),
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
    found = refused(**fields)
    assert found is not None and found["field"] == field and told in found["detail"], found
    assert not Path("/tmp/sfumato-was-here").exists()


def test_it_passes_what_does(folder: Path) -> None:
    controls = [{"model": "edges", "image": "x", "mode": "guess"}]
    assert refused(controls=controls, embeddings=[["word", "w"]], loras=["whole"]) is None
    assert refused(loras=["more"], allow_unmatched=True) is None


REAL = (sys.executable, "-m", "sfumato.server.worker")
NOBODY = ("there is no such program",)
CARD = {"name": "drawn-world", "hash": "h", "size_bytes": 38 << 20}
SMALL, LARGE = Shape(64, 64), Shape(8192, 8192)


def test_a_job_is_refused_by_the_real_program_and_taken_once_it_passes(folder: Path, settings: Settings) -> None:
    beside = Beside(replace(settings, program=REAL), lambda: 2 << 30)
    wide = Request(prompt="x", seed=1, embeddings=[["wide", "w"]])  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"wide\.safetensors does not fit") as caught:
        beside.check(wide, CARD, {("embedding", "wide"): folder / "wide.safetensors"}, SMALL)
    assert caught.value.field == "embeddings" and str(folder) not in str(caught.value)
    whole = Request(prompt="x", seed=1, loras=["whole"], width=8192, height=8192)  # type: ignore[arg-type]
    files = {("lora", "whole"): folder / "whole.safetensors"}
    with pytest.raises(RequestError, match=r"^width: 8192x8192 needs \d+\.\d GB.*; 2\.0 GB are there\. Draw smaller"):
        beside.check(whole, CARD, files, LARGE)
    beside._settings = replace(settings, program=NOBODY)  # without a child from here on
    beside.check(replace(whole, width=64, loras=[["whole", 0.5]]), CARD, files, SMALL)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="are there"):
        beside.check(whole, CARD, files, LARGE)


def test_the_child_counts_what_the_engine_would(folder: Path) -> None:
    request = Request(prompt="x", seed=1, width=1024, height=1024)
    asked = {"request": request.to_dict(), "shape": asdict(Shape(1024, 1024)), "room": 0}
    looked_at(asked)  # what this process has from counting is there from here on
    need = looked_at(asked)["need"]
    assert need["whole"] and need["least"] < need["usual"]
    plan, least = Engine().plan(request), Engine(memory="low").plan(request)
    assert plan is not None and least is not None and need["saves"] == least.saves
    assert abs(plan.peak - need["usual"]) < 64 << 20  # what this process has meanwhile
    plenty = looked_at({**asked, "room": 2**40})["need"]
    assert not plenty["whole"] and plenty["least"] == plenty["usual"]


class Counting(Beside):
    """Says what is needed without a child, and counts how often it was asked."""

    def __init__(self, settings: Settings, needs: list[Need]) -> None:
        self.room, self.needs, self.asked = 0, needs, 0
        super().__init__(replace(settings, program=NOBODY), lambda: self.room)

    def _ask(self, asked: Question, room: int | None) -> None:
        self.asked += 1
        self._needs[asked.memory] = self.needs.pop(0)


def test_what_was_counted_is_not_asked_for_again_whatever_is_free(settings: Settings) -> None:
    """Unless less is free now than it was counted for, and not all ways were."""
    beside = Counting(settings, [Need(90 << 30, 90 << 30, whole=False), Need(90 << 30, 20 << 30, "tiles")])
    request = Request(prompt="x", seed=1)
    for free, refused in ((2**50, False), (100 << 30, False), (80 << 30, False), (30 << 30, False), (10 << 30, True)):
        beside.room = free
        with pytest.raises(RequestError, match=r"10\.0 GB are there") if refused else contextlib.nullcontext():
            beside.check(request, CARD, {}, LARGE)
    assert beside.asked == 2  # at first it fitted for sure
    beside.check(request, CARD, {}, SMALL)
    with pytest.raises(IndexError):
        beside.check(request, CARD, {}, replace(LARGE, batch=2))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"width": 8192, "height": 8192}, "width"),
        ({"width": 8192, "height": 8192, "count": 4, "batch": 4}, "batch"),
        ({"hires": {"scale": 4}, "width": 2048, "height": 2048}, "hires.scale"),
        ({"hires": {"size": [8192, 8192]}}, "hires.size"),
    ],
)
def test_what_cannot_fit_is_no_job(shared: TestClient, fields: dict[str, Any], field: str) -> None:
    answer = shared.post(f"{API}/jobs", json={"request": {"prompt": "x", **fields}})
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert "with everything that saves memory (tiles); " in answer.json()["detail"]
    assert shared.get(f"{API}/jobs").json()["jobs"] == []


def test_every_api_tells_what_cannot_fit_by_its_own_name(shared: TestClient) -> None:
    size = {"width": 8192, "height": 8192}
    body = {"prompt": "x", "sampler_name": "Euler", "steps": 2, **size}
    for more, field in (({}, "width"), ({"batch_size": 4}, "batch_size"), ({"n_iter": 4}, "width")):
        answer = shared.post("/sdapi/v1/txt2img", json={**body, **more})
        assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", field], answer.text
    body |= {"width": 2048, "height": 2048, "enable_hr": True, "hr_scale": 4, "denoising_strength": 0.5}
    answer = shared.post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "hr_scale"], answer.text
    answer = shared.post("/v1/images/generations", json={"prompt": "x", "size": "8192x8192"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "size"), answer.text
    assert "are there. Draw smaller pictures" in answer.json()["error"]["message"]
    assert shared.get(f"{API}/jobs").json()["jobs"] == []


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
