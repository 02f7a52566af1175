"""A GPU's memory: only what computes is there; the same bytes as where all of it is. The CPU stands for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from companions import with_companion
from PIL import Image
from safetensors.torch import save_file
from test_image_prompt_requests import ENCODER, FORMS
from test_memory_beside import changed
from tiny_models import SIZE, Pair, random_weights, scene
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sfumato import operations as op
from sfumato.controls.steering import Steering, steered
from sfumato.engine import Engine
from sfumato.errors import MemoryLimitError
from sfumato.events import Finished
from sfumato.memory.held import networks
from sfumato.memory.on_device import HeldOnDevice
from sfumato.memory.plan import Plan, make_plan
from sfumato.memory.shape import Shape
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
from sfumato.nn.resting import AtOnce, Resting, Room, Weight, is_resting, rest
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.replay import replay
from sfumato.request import Control, Request
from sfumato.weights.embeddings import WordVectors, save_embedding
from sfumato.weights.ip_adapter_file import ways
from sfumato.weights.lora_save import save_lora
from sfumato.weights.places import home
from sfumato.weights.save import save_folder

Pairs = Callable[[str], Pair]
REQUEST = Request(prompt="a red house", negative_prompt="blurry", seed=3, steps=3, width=SIZE, height=SIZE)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for each test."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path_factory.mktemp("home")))


@dataclass
class Card:
    """A device's memory with so much free, and nothing of this process."""

    left: int
    on_device = True

    def taken(self) -> int:
        return 0

    def free(self) -> int | None:
        return self.left


def engine_on(left: int, memory: str = "auto", keep: int = 1) -> Engine:
    """An engine whose device has so much memory left."""
    made = Engine("cpu", memory=memory, keep=keep)
    made.space = Card(left)
    return made


def least(request: Request) -> int:
    """The bytes in which a request fits if its networks move, and not otherwise."""
    found = engine_on(2**50, "low").plan(request)
    assert found is not None and found.moves and found.streams
    return found.peak


def drawn(engine: Engine, request: Request, **given: Any) -> Image.Image:
    (event,) = (each for each in engine.run(request, metadata=False, **given) if isinstance(each, Finished))
    return event.picture


def apart(engine: Engine) -> Engine:
    """An engine that keeps all where it is and asks in two passes, as one with little memory does."""
    every = engine.model_for
    engine.model_for = lambda *args, **more: replace(every(*args, **more), apart=True)  # type: ignore[method-assign]
    return engine


@pytest.fixture
def folder(pair: Pairs, tmp_path: Path) -> str:
    return str(save_folder(pair("sd1").ours, tmp_path / "model"))


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "inpaint"])
@pytest.mark.parametrize("memory", ["auto", "low"])
def test_a_model_that_moves_draws_the_same_bytes(kind: str, memory: str, pair: Pairs, tmp_path: Path) -> None:
    request = replace(REQUEST, model=str(save_folder(pair(kind).ours, tmp_path / "model")))
    given = {"image": scene(), "mask": Image.new("L", (SIZE, SIZE), 255)} if kind == "inpaint" else {}
    expected = drawn(apart(Engine("cpu")), request, **given)
    engine = engine_on(least(request), memory)
    assert drawn(engine, request, **given).tobytes() == expected.tobytes()
    model = engine.model(request.model)
    assert model.spares  # no step is recorded
    assert all(is_resting(each) for each in networks(model)) and engine._room.by_layers == (memory == "low")
    assert drawn(engine, request, **given).tobytes() == expected.tobytes()  # what came next is known now


@contextmanager
def there(engine: Engine, model: Model) -> Iterator[dict[str, set[str]]]:
    """What is on the device while a network computes, by names."""
    names = {"text": model.text.encoders[0], "unet": model.unet, "autoencoder": model.autoencoder.decoder}
    found: dict[str, set[str]] = {name: set() for name in names}

    def at(name: str) -> Callable[..., None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...], answer: object) -> None:
            if inputs[0].is_meta:  # it is only counted
                return
            found[name] |= {
                other
                for other, network in names.items()
                if any(each.weight.here is not None for each in network.parameters() if isinstance(each, Resting))
            }

        return look

    hooks = [network.register_forward_hook(at(name)) for name, network in names.items()]
    yield found
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("memory", ["auto", "low"])
def test_only_the_network_that_computes_is_on_the_device(folder: str, memory: str) -> None:
    request = replace(REQUEST, model=folder)
    engine = engine_on(least(request), memory)
    drawn(engine, request)
    model = engine.model(folder)
    with there(engine, model) as found:
        drawn(engine, request)
    assert found == {name: {name} for name in ("text", "unet", "autoencoder")}
    size = sum(each.numel() * 4 for each in model.autoencoder.parameters())
    assert 0 < engine._room.nbytes < size  # its encoder has nothing to do
    engine.forget()
    assert engine._room.nbytes == 0


@pytest.fixture
def beside(pair: Pairs, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What a request can use beside its model, as its fields."""
    unet = pair("sd1").ours.unet
    down, up, middle = ways(unet)
    config = IPAdapterConfig("plus", context=32, widths=(*down, *up, *middle), **FORMS["plus"])
    folder = tmp_path / "ip"
    folder.mkdir()
    save_file(random_weights(IPAdapter(config), 22).state_dict(), folder / "ip-adapter.safetensors")
    random_weights(CLIPVisionModelWithProjection(CLIPVisionConfig(**ENCODER.to_json())), 21).save_pretrained(
        folder / "image_encoder"
    )
    save_file(random_weights(ControlNet.of(unet), 11).state_dict(), tmp_path / "net.safetensors")
    sketch = T2IAdapter(T2IAdapterConfig(in_channels=1, channels=(32, 64)))
    save_file(random_weights(sketch, 12).state_dict(), tmp_path / "sketch.safetensors")
    scene(80, 60).save(tmp_path / "pose.png")
    picture = str(tmp_path / "pose.png")
    word = WordVectors("<toy>", (torch.randn(2, 32, generator=torch.Generator().manual_seed(5)),))
    save_embedding(tmp_path / "toy.safetensors", word)
    lora = save_lora(tmp_path / "lora.safetensors", {"unet": changed(unet)})
    return {
        "controls": {
            "controls": [
                {"model": str(tmp_path / f"{name}.safetensors"), "image": picture} for name in ("net", "sketch")
            ]
        },
        "image prompts": {"image_prompts": [{"model": str(folder / "ip-adapter.safetensors"), "images": [picture]}]},
        "a LoRA": {"loras": [(str(lora), 0.8)]},
        "an embedding": {"prompt": "a <toy>", "embeddings": [str(tmp_path / "toy.safetensors")]},
        "a second pass": {"hires": {"scale": 1.5, "upscaler": "lanczos"}},
        "guides": {"freeu": True, "tiling": "both", "perturbed_attention": True, "self_attention_guidance": True},
    }


@pytest.mark.parametrize("memory", ["auto", "low"])
def test_what_a_request_uses_beside_its_model_moves_too(
    memory: str, folder: str, beside: dict[str, dict[str, Any]]
) -> None:
    stays, plain = apart(Engine("cpu")), drawn(apart(Engine("cpu")), replace(REQUEST, model=folder))
    for name, fields in beside.items():
        request = replace(REQUEST, model=folder, **fields)
        engine = engine_on(least(request), memory)
        found, expected = drawn(engine, request), drawn(stays, request)
        assert found.tobytes() == expected.tobytes() != plain.tobytes(), name
        used = engine.model_for(request)
        every = (*networks(used), *used.controls.values())
        assert all(isinstance(each, Resting) for network in every for each in network.parameters()), name


def test_a_refiner_and_a_companion_move_too(folder: str, pair: Pairs, tmp_path: Path) -> None:
    second = str(save_folder(pair("sd1").ours, tmp_path / "second"))
    whole = str(with_companion(Path(folder), tmp_path / "whole"))
    refined = replace(REQUEST, model=folder, refiner={"model": second, "at": 0.5})  # type: ignore[arg-type]
    inpainted = replace(REQUEST, model=whole, masking="network")
    given = {"image": scene(), "mask": Image.new("L", (SIZE, SIZE), 255)}
    for request, pictures in ((refined, {}), (inpainted, given)):
        engine = engine_on(least(request), "low")
        assert (
            drawn(engine, request, **pictures).tobytes()
            == drawn(apart(Engine("cpu", keep=2)), request, **pictures).tobytes()
        )
    assert engine._moved == {(whole, None, None)}
    other = str(save_folder(pair("sd1").ours, tmp_path / "other"))
    engine = engine_on(least(refined), "low")
    for each in (second, other):
        drawn(engine, replace(refined, refiner={"model": each, "at": 0.5}))  # type: ignore[arg-type]
    assert set(engine._models) == {(folder, None, None), (other, None, None)}  # the first refiner was let go of


def test_where_the_host_has_no_room_weights_rest_on_the_disk(folder: str) -> None:
    request = replace(REQUEST, model=folder)
    expected = drawn(engine_on(least(request), "low"), request)
    engine = engine_on(least(request), "low")
    engine.host = Card(0)
    found = drawn(engine, request)
    assert len(list((home() / "cache" / "streamed").iterdir())) == 1
    apart_by = max(abs(a - b) for a, b in zip(found.tobytes(), expected.tobytes(), strict=True))
    assert apart_by <= 1  # on a CPU convolutions have their weights in another order


def test_a_plan_for_a_device_gives_up_as_little_as_it_has_to(pair: Pairs) -> None:
    model, shape, dtype = pair("sd1").ours, Shape(1024, 1024), torch.float32
    held = HeldOnDevice(model, shape, dtype)
    ways = [
        Plan(dtype),
        Plan(dtype, apart=True),
        Plan(dtype, apart=True, tiled_above=512 * 512),
        Plan(dtype, apart=True, tiled_above=512 * 512, moves=True),
    ]
    peaks = [held.bytes(each) for each in ways]
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == 4
    for way, peak in zip(ways, peaks, strict=True):
        found = make_plan(model, shape, dtype, "auto", here=0, available=peak, on_device=True)
        assert replace(found, peak=0) == way
    low = make_plan(model, shape, dtype, "low", here=0, available=peaks[-1], on_device=True)
    assert replace(low, peak=0) == replace(ways[-1], streams=True)
    assert low.saves.startswith("only the layer that computes is on the device, guidance in two passes")
    with pytest.raises(MemoryLimitError, match=r"1024x1024 needs .* and .* with everything that saves memory \(only"):
        make_plan(model, shape, dtype, "400MB", here=0, available=2**40, on_device=True)


def test_what_is_counted_for_a_device_are_the_networks_that_are_there_together(pair: Pairs) -> None:
    """Of published sizes: SD 1.5's UNet is 859.5 million numbers, of which the largest weight has 29.5 million."""
    from sfumato.nn.unet import UNet, UNetConfig
    from sfumato.weights.build import on_meta

    unet = on_meta(lambda: UNet(UNetConfig(cross_attention_dim=768)))
    model = replace(pair("sd1").ours, unet=unet)
    model = replace(model, text=pair("sd1").ours.text)
    held = HeldOnDevice(model, Shape(64, 64), torch.float16)
    count = sum(each.numel() for each in unet.parameters())
    assert count == 859_520_964
    assert held.parts(Plan(torch.float16, moves=True))["weights"] == 2 * count
    streams = held.parts(Plan(torch.float16, moves=True, streams=True))["weights"]
    assert streams == 2 * 2 * 2560 * 1280 * 9 + (64 << 20)


def test_what_does_not_fit_a_device_is_refused_before_it_is_loaded(folder: str) -> None:
    engine = engine_on(2**20)
    with pytest.raises(MemoryLimitError, match=r"64x64 needs \d+ MB, and \d+ MB with .*; 1 MB are there"):
        drawn(engine, replace(REQUEST, model=folder))
    assert not engine.is_loaded(folder)


def test_with_enough_memory_nothing_moves(folder: str) -> None:
    request = replace(REQUEST, model=folder)
    engine = engine_on(2**40)
    assert drawn(engine, request).tobytes() == drawn(Engine("cpu"), request).tobytes()
    model = engine.model(folder)
    assert not any(map(is_resting, networks(model))) and not model.spares


def test_a_model_that_moves_goes_on_moving_and_can_be_replayed(folder: str, tmp_path: Path) -> None:
    request = replace(REQUEST, model=folder)
    engine = engine_on(least(request), "low")
    events = [each for each in engine.run(request) if isinstance(each, Finished)]
    from sfumato.metadata import save

    save(events[0].picture, tmp_path / "a.png")
    engine.space, engine.memory = Card(2**40), "auto"
    before = engine.model(folder)
    drawn(engine, request)
    assert engine.model(folder) is before and not engine._room.by_layers
    assert replay(tmp_path / "a.png", engine=engine).outcome in ("identical", "differs")
    other = str(save_folder(engine.model(folder), tmp_path / "other"))  # another model takes its place
    drawn(engine, replace(REQUEST, model=other))
    assert engine._moved == set() and engine._room.nbytes == 0


class Unheld(AtOnce):
    """Copies of tensors without numbers."""

    def bring(self, weight: Weight) -> Tensor:
        order = weight.order or torch.preserve_format
        return torch.ops.aten.clone.default(weight.rest.to(self.device, copy=True), memory_format=order)


class Guardless(TorchFunctionMode):
    """What asks for a GPU's driver before it asks whether a tensor has numbers is asked in another way."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.contiguous:
            return torch.ops.aten.clone.default(
                args[0], memory_format=kwargs.get("memory_format", torch.contiguous_format)
            )
        if func is Tensor.__bool__:
            return True
        if func is Tensor.item:
            return 1.0
        if func is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(args[0].device)
        if func is Tensor.__getitem__:
            return indexed(*args)
        return func(*args, **kwargs)


def indexed(tensor: Tensor, index: Any) -> Tensor:
    """tensor[index], by PyTorch's operators."""
    if isinstance(tensor, Resting):
        tensor = tensor.numbers
    parts = index if isinstance(index, tuple) else (index,)
    if Ellipsis in [each for each in parts if not isinstance(each, Tensor)]:
        place = parts.index(Ellipsis)
        left = tensor.ndim - sum(each is not None for each in parts) + 1
        parts = (*parts[:place], *[slice(None)] * left, *parts[place + 1 :])
    if any(isinstance(each, Tensor) for each in parts):
        return torch.ops.aten.index.Tensor(tensor, [each if isinstance(each, Tensor) else None for each in parts])
    dim = 0
    for each in parts:
        if each is None:
            tensor, dim = torch.ops.aten.unsqueeze.default(tensor, dim), dim + 1
        elif isinstance(each, slice):
            tensor = torch.ops.aten.slice.Tensor(tensor, dim, each.start, each.stop, each.step or 1)
            dim += 1
        else:
            tensor = torch.ops.aten.select.int(tensor, dim, each)
    return tensor


def faked(network: nn.Module, mode: FakeTensorMode, room: Room, name: str) -> None:
    """Take a network's numbers away, and let its weights rest on the CPU for a GPU that is not there."""
    for module in network.modules():
        for key, parameter in module.named_parameters(recurse=False):
            module._parameters[key] = nn.Parameter(mode.from_tensor(parameter.data), requires_grad=False)
    rest(network, room, name, torch.channels_last)


@pytest.mark.parametrize("by_layers", [False, True])
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_no_tensor_of_a_run_is_on_another_device_than_what_it_meets(
    kind: str, by_layers: bool, folder: str, pair: Pairs, tmp_path: Path
) -> None:
    """With tensors that know their device and have no numbers: two devices in an operation are refused."""
    model = Engine("cpu").model(str(save_folder(pair(kind).ours, tmp_path / "other")))
    cuda = torch.device("cuda", 0)
    network = ControlNet.of(model.unet).requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Guardless(), torch.no_grad():
        room = Room(cuda, Unheld(cuda))
        room.by_layers = by_layers
        for each, name in ((model.unet, "unet"), (network, "unet"), (model.autoencoder, "autoencoder")):
            faked(each, mode, room, name)
        for each in model.text.encoders:
            faked(each, mode, room, "text")
        model = replace(model, apart=True)
        assert model.device == cuda
        canvas = op.Canvas(SIZE, SIZE, model.stride)
        positive, negative = op.encode_text(model, "a (red:1.2) house", "blurry", canvas)
        steering = Steering(Control("x"), network, torch.empty(1, 3, SIZE, SIZE))
        positive, negative = steered(positive, negative, [steering], [1.0, 0.0])
        denoise = op.guided(model, positive, negative, op.Guidance(scale=5.0), model.schedule.timestep)
        x = torch.empty(1, 4, *canvas.cells, device=cuda)
        denoised = denoise(x, 1.0)
        assert denoised.device == cuda
        assert op.decode(model, denoised).device == cuda
        assert op.encode_image(model, torch.empty(1, 3, SIZE, SIZE)).mean.device == cuda
