"""What a request uses beside its model is in the estimate: LoRAs, control networks, a refiner, an upscaler, bands."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_image_prompt_requests import ENCODER, FORMS
from tiny_models import Pair, random_weights, scene
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sfumato.engine import Engine
from sfumato.errors import MemoryLimitError
from sfumato.events import Finished
from sfumato.memory.beside import Beside, open_beside
from sfumato.memory.held import Held
from sfumato.memory.ledger import held_by
from sfumato.memory.plan import Plan
from sfumato.memory.shape import Shape
from sfumato.nn.autoencoder import Autoencoder
from sfumato.nn.banded import decode_banded, encode_banded
from sfumato.nn.clip_vision import VIT_H, ImageEncoder
from sfumato.nn.controlnet import ControlNet, ControlNetConfig
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
from sfumato.nn.lora import Adapters, Target, create
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.nn.unet import UNetConfig
from sfumato.nn.upscaler import RRDBNet, SRVGGNet
from sfumato.request import Request
from sfumato.weights.build import on_meta
from sfumato.weights.families import SD1_AUTOENCODER
from sfumato.weights.ip_adapter_file import ways
from sfumato.weights.load import hollow, open_model
from sfumato.weights.lora_save import save_lora
from sfumato.weights.places import home
from sfumato.weights.save import save_folder
from sfumato.weights.streamed import units
from sfumato.weights.upscaler_file import hollow_upscaler, load_upscaler

Pairs = Callable[[str], Pair]
REQUEST = Request(prompt="a red house", seed=3, steps=2)
USUAL = Plan(torch.float32)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for each test."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def folder(pair: Pairs, tmp_path: Path) -> str:
    return str(save_folder(pair("sd1").ours, tmp_path / "model"))


def changed(network: torch.nn.Module, pattern: str = "*") -> Adapters:
    """Adapters that change something."""
    found = create(network, [Target(pattern, 2)])
    for _, adapter in found.items():
        torch.nn.init.normal_(adapter.up, std=0.2, generator=torch.Generator().manual_seed(1))
    return found.requires_grad_(False)  # type: ignore[return-value]


@pytest.fixture
def lora(pair: Pairs, tmp_path: Path) -> str:
    return str(save_lora(tmp_path / "lora.safetensors", {"unet": changed(pair("sd1").ours.unet)}))


def drawn(engine: Engine, request: Request) -> np.ndarray:
    (event,) = (each for each in engine.run(request, metadata=False) if isinstance(each, Finished))
    return np.asarray(event.picture).astype(int)


def plan(engine: Engine, request: Request, **pictures: object) -> Plan:
    found = engine.plan(request, **pictures)  # type: ignore[arg-type]
    assert found is not None
    return found


def parts(folder: str, request: Request) -> dict[str, int]:
    """The weights and what runs, of what the engine foretells; its own process is left out."""
    model = hollow(open_model(folder), "x")
    refiner = None if request.refiner is None else hollow(open_model(request.refiner.model), "y")
    beside = open_beside(request, model, request.loras, refiner, masked=False)
    return Held(model, Shape(64, 64), torch.float32, beside).parts(USUAL)


def test_a_lora_counts_with_the_weights_that_it_changes(folder: str, lora: str, pair: Pairs) -> None:
    unet = pair("sd1").ours.unet
    second = sum(
        layer.weight.numel() for layer in unet.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    )
    without, one, two = (parts(folder, replace(REQUEST, loras=[(lora, 1.0)] * count))["weights"] for count in range(3))
    assert one - without == two - without == 4 * second


def test_where_weights_stay_on_the_disk_a_lora_acts_beside_them(folder: str, lora: str) -> None:
    """It draws the same up to rounding, and counts with its own size alone."""
    request = replace(REQUEST, model=folder, loras=[(lora, 0.8)])
    low = Engine("cpu", memory="low", dtype="float32")
    found, plain = drawn(low, request), drawn(low, replace(request, loras=[]))
    expected = drawn(Engine("cpu", dtype="bfloat16"), request)
    assert np.abs(found - plain).max() > 20
    # both in bfloat16, rounded at other places: 2.8 to 3.6 from one process to another
    assert np.abs(found - expected).mean() < 5 < np.abs(found - plain).mean()
    streamed = low.model(folder)
    shared = {each.data_ptr() for each in streamed.unet.parameters()}
    with_lora = low.model(folder, loras=request.loras)
    assert {each.data_ptr() for each in with_lora.unet.parameters()} == shared


@pytest.fixture
def steering(pair: Pairs, tmp_path: Path) -> dict[str, object]:
    """A ControlNet, a T2I-Adapter and an IP-Adapter with its image encoder, as a request's fields."""
    unet = pair("sd1").ours.unet
    down, up, middle = ways(unet)
    config = IPAdapterConfig("plus", context=32, widths=(*down, *up, *middle), **FORMS["plus"])
    made = {
        "net": ControlNet.of(unet),
        "sketch": T2IAdapter(T2IAdapterConfig(in_channels=1, channels=(32, 64))),
        "ip-adapter": IPAdapter(config),
    }
    for seed, (name, network) in enumerate(made.items()):
        save_file(random_weights(network, seed).state_dict(), tmp_path / f"{name}.safetensors")
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**ENCODER.to_json()))
    random_weights(tower, 21).save_pretrained(tmp_path / "image_encoder")
    picture = str(tmp_path / "picture.png")
    scene().save(picture)
    return {
        "controls": [{"model": str(tmp_path / f"{name}.safetensors"), "image": picture} for name in ("net", "sketch")],
        "image_prompts": [{"model": str(tmp_path / "ip-adapter.safetensors"), "images": [picture]}],
    }


def test_control_networks_stay_on_the_disk_too(folder: str, steering: dict[str, object]) -> None:
    """They draw the same up to rounding; of each, a layer counts."""
    request = replace(REQUEST, model=folder, width=64, height=64, **steering)  # type: ignore[arg-type]
    low = Engine("cpu", memory="low")
    found, plain = drawn(low, request), drawn(low, replace(request, controls=[], image_prompts=[]))
    expected = drawn(Engine("cpu", dtype="bfloat16"), request)
    assert np.abs(found - plain).max() > 20
    # both in bfloat16, rounded at other places: 2.8 to 3.6 from one process to another
    assert np.abs(found - expected).mean() < 5 < np.abs(found - plain).mean()
    assert len(list((home() / "cache" / "streamed").iterdir())) == 1 + 4  # the model, and each network beside it
    assert np.array_equal(drawn(low, request), found)  # what was let go of comes back as it was
    model = hollow(open_model(folder), "x")
    beside = open_beside(request, model, [], None, masked=False)
    held = Held(model, Shape(64, 64), torch.float32, beside)
    streams, stays = (held.parts(replace(USUAL, streams=each))["weights"] for each in (True, False))
    assert streams == 0  # none of them stays
    assert stays > sum(each.numel() * 4 for network in beside.networks for each in network.parameters())


def test_every_weight_beside_a_model_belongs_to_a_layer_or_is_small() -> None:
    for network in (
        on_meta(lambda: ImageEncoder(VIT_H)),
        on_meta(lambda: ControlNet(ControlNetConfig(UNetConfig()))),
        on_meta(lambda: IPAdapter(IPAdapterConfig("plus", 1280, 768, (320,) * 16, 16, 768, 4, 12))),
    ):
        named = {f"{path}.{name}" for path, unit in units(network) for name in unit.state_dict()}
        left = {name: each.numel() for name, each in network.named_parameters() if name not in named}
        assert sum(left.values()) < 20_000, left


def test_control_networks_count_once_each_with_what_they_see(folder: str, pair: Pairs, tmp_path: Path) -> None:
    network = ControlNet.of(pair("sd1").ours.unet)
    path = tmp_path / "controlnet.safetensors"
    save_file(network.state_dict(), path)
    picture = tmp_path / "picture.png"
    scene().save(picture)
    controls = [{"model": str(path), "image": str(picture)}]
    without, one, two = (parts(folder, replace(REQUEST, controls=controls * count)) for count in range(3))
    own = 4 * sum(each.numel() for each in network.parameters())
    assert one["weights"] - without["weights"] == two["weights"] - without["weights"] == own


def test_a_refiner_counts_whole(folder: str, pair: Pairs, tmp_path: Path) -> None:
    other = pair("sd1").ours
    second = str(save_folder(other, tmp_path / "second"))
    without, found = (
        parts(folder, replace(REQUEST, refiner=refiner)) for refiner in (None, {"model": second, "at": 0.5})
    )
    networks = (other.unet, other.autoencoder, *other.text.encoders)
    own = 4 * sum(each.numel() for network in networks for each in network.parameters())
    assert found["weights"] - without["weights"] == own


def test_a_refiner_stays_on_the_disk_too(folder: str, pair: Pairs, tmp_path: Path) -> None:
    second = str(save_folder(pair("sd1").ours, tmp_path / "second"))
    request = replace(REQUEST, model=folder, refiner={"model": second, "at": 0.5})
    engine = Engine("cpu", memory="low")
    assert drawn(engine, request).std() > 10
    assert len(engine._streamed) == 2
    assert np.array_equal(drawn(engine, request), drawn(Engine("cpu", memory="low"), request))


@pytest.mark.parametrize(
    "network", [RRDBNet(features=8, blocks=1, growth=4, doublings=1), SRVGGNet(features=8, convolutions=2, scale=2)]
)
def test_an_upscaler_is_understood_from_its_shapes_alone(network: torch.nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "up.safetensors")
    hollow, read = hollow_upscaler(tmp_path / "up.safetensors"), load_upscaler(tmp_path / "up.safetensors")
    assert {name: each.shape for name, each in hollow.state_dict().items()} == {
        name: each.shape for name, each in read.state_dict().items()
    }
    assert all(each.is_meta for each in hollow.parameters())


def test_an_upscaler_counts_with_its_tile(pair: Pairs) -> None:
    model = pair("sd1").ours
    with torch.device("meta"):
        network = RRDBNet(features=64, blocks=1, growth=32, doublings=2)
    shape = Shape(64, 64)
    without, found = (Held(model, shape, torch.float32, Beside(upscaler=each)).parts(USUAL) for each in (None, network))
    assert found["weights"] - without["weights"] == 4 * sum(each.numel() for each in network.parameters())
    largest = 288 * 288 * 16 * 64 * 4  # the last map at four times the tile's size
    assert found["running"] > 2 * largest > without["running"]
    small = Held(model, replace(shape, enlarges=(32, 48)), torch.float32, Beside(upscaler=network)).parts(USUAL)
    assert small["running"] < found["running"] / 10  # a picture that is smaller than a tile


def test_large_tensors_leave_no_holes() -> None:
    """They are apart from the C library's heap and go back to the system: less of them stays with the process."""
    sides = (1024, 4 * 1024)  # 16 MiB
    small = held_by([], lambda: [torch.empty(sides, device="meta") for _ in range(16)])
    large = held_by([], lambda: torch.empty(16, *sides, device="meta"))
    assert small.tensors == large.tensors == 16 * 1024 * 4 * 1024 * 4
    assert large.tensors < large.process < small.process


def test_bands_are_counted_and_take_less_than_the_whole() -> None:
    """At 1024x1024 the published decoder's widest maps in float32: whole, several; in bands, about one."""
    with torch.device("meta"):
        autoencoder = Autoencoder(SD1_AUTOENCODER)
        latent, pixels = torch.empty(1, 4, 128, 128), torch.empty(1, 3, 1024, 1024)
    held = {
        way: held_by([autoencoder], lambda run=run, given=given: run(autoencoder, given)).tensors  # type: ignore[misc]
        for way, run, given in (
            ("whole", Autoencoder.decode, latent),
            ("banded", decode_banded, latent),
            ("encoded whole", Autoencoder.encode, pixels),
            ("encoded in bands", encode_banded, pixels),
        )
    }
    one = 1024 * 1024 * 128 * 4
    assert one < held["banded"] < 2 * one < held["whole"]
    assert one < held["encoded in bands"] < held["encoded whole"]


def test_models_that_will_be_let_go_are_room(folder: str, pair: Pairs, tmp_path: Path) -> None:
    """A budget in which one of two models fits: the second is loaded in place of the first, as it is."""
    second = str(save_folder(pair("sd2").ours, tmp_path / "second"))
    engine = Engine("cpu")
    drawn(engine, replace(REQUEST, model=folder))
    foretold = plan(engine, replace(REQUEST, model=second)).peak
    alone = plan(Engine("cpu"), replace(REQUEST, model=second)).peak
    both = Engine("cpu", keep=2)
    drawn(both, replace(REQUEST, model=folder))
    kept = plan(both, replace(REQUEST, model=second)).peak
    ours = sum(each.numel() for each in pair("sd1").ours.unet.parameters()) * 4
    assert kept - foretold >= ours
    assert abs(foretold - alone) < 64 << 20


def test_what_is_beside_is_refused_with_it(folder: str, lora: str) -> None:
    engine = Engine("cpu", memory="1MB")
    with pytest.raises(MemoryLimitError, match="512x512 needs"):
        list(engine.run(replace(REQUEST, model=folder, loras=[(lora, 1.0)], width=512, height=512)))
    assert not engine.is_loaded(folder)
