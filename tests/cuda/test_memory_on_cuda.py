"""Little memory on a CUDA device: the same bytes, within the plan, and only what computes is there."""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from random_networks import randomize
from sfumato.engine import Engine
from sfumato.errors import MemoryLimitError
from sfumato.events import Finished
from sfumato.memory.held import networks
from sfumato.memory.plan import Plan
from sfumato.model import Model
from sfumato.nn.resting import Resting, Room, is_resting, rest
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.request import Request

pytestmark = pytest.mark.gpu

REQUEST = Request(prompt="a red circle above a blue square", negative_prompt="green", seed=11, steps=6)
WIDE = UNetConfig(cross_attention_dim=768)  # SD 1.5's: 1.6 GiB in float16


@pytest.fixture(autouse=True)
def alone(device: torch.device) -> Iterator[None]:
    """Nothing of other tests on the device."""
    if device.type != "cuda" or not torch.cuda.is_available():
        pytest.skip("measures a CUDA device's memory")
    gc.collect()
    torch.cuda.empty_cache()
    yield
    gc.collect()
    torch.cuda.empty_cache()


def drawn(engine: Engine, request: Request = REQUEST) -> Image.Image:
    (event,) = (each for each in engine.run(request, metadata=False) if isinstance(each, Finished))
    return event.picture


def apart(engine: Engine) -> Engine:
    """An engine that keeps all where it is and asks in two passes."""
    every = engine.model_for

    def model_for(*given: Any, **more: Any) -> Model:
        return replace(every(*given, **more), apart=True)

    engine.model_for = model_for  # type: ignore[method-assign]
    return engine


def peak_of(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors beyond those that there were."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_low_draws_the_same_bytes_within_the_plan(dtype: str, device: torch.device) -> None:
    expected = drawn(apart(Engine(str(device), dtype)))
    gc.collect()
    low = Engine(str(device), dtype, memory="low")
    plan = low.plan(REQUEST)
    assert plan is not None and plan.moves and plan.streams
    pictures = []
    peak = peak_of(lambda: pictures.extend(drawn(low) for _ in range(2)), device)
    print(f"{dtype}: peak {peak >> 20} MiB of {plan.peak >> 20} planned")
    assert [each.tobytes() for each in pictures] == [expected.tobytes()] * 2
    assert peak <= plan.peak
    assert peak < 250 << 20  # 64 MiB of weights ahead, the decoder's maps of 128 pixels, what libraries take
    assert all(is_resting(each) for each in networks(low.model()))


def test_networks_come_and_go_with_the_same_bytes(device: torch.device) -> None:
    expected = drawn(apart(Engine(str(device), "float16")))
    engine = Engine(str(device), "float16")
    usual, low = engine.plan(REQUEST), Engine(str(device), "float16", memory="low").plan(REQUEST)
    assert usual is not None and low is not None
    engine.memory = f"{(low.peak + (1 << 20)) >> 10}K"  # by layers needs as much, as this model is small
    found = engine.plan(REQUEST)
    assert found is not None and found.moves
    assert drawn(engine).tobytes() == expected.tobytes()


def test_with_enough_memory_nothing_moves(device: torch.device) -> None:
    engine = Engine(str(device), "float16")
    assert replace(engine.plan(REQUEST) or Plan(torch.float16), peak=0) == Plan(torch.float16)
    drawn(engine)
    assert not any(map(is_resting, networks(engine.model()))) and not engine.model().spares


def test_what_does_not_fit_is_refused_before_it_is_loaded(device: torch.device) -> None:
    engine = Engine(str(device), "float16", memory="100MB")
    with pytest.raises(MemoryLimitError, match="with --memory"):
        drawn(engine, replace(REQUEST, width=2048, height=2048))
    assert not engine.is_loaded()


@pytest.fixture(scope="module")
def wide() -> UNet:
    """A UNet of SD 1.5's size in float16, on the CPU."""
    network = UNet(WIDE)
    randomize(network)
    return network.half().requires_grad_(False).eval()


def asked(unet: UNet, device: torch.device) -> torch.Tensor:
    """Its answer for a latent of 512x512 pixels."""
    numbers = torch.linspace(-1, 1, 4 * 64 * 64 + 77 * 768).half()
    x, context = numbers[: 4 * 64 * 64].view(1, 4, 64, 64), numbers[4 * 64 * 64 :].view(1, 77, 768)
    with torch.no_grad():
        found: torch.Tensor = unet(x.to(device), torch.tensor([500.0], device=device), context.to(device))
    return found.cpu()


def in_place(wide: UNet, device: torch.device) -> tuple[torch.Tensor, float]:
    """The answer of a UNet that is on the device, and the seconds that it takes."""
    there = UNet(WIDE)
    there.load_state_dict(wide.state_dict(), assign=True)
    there = there.to(device).requires_grad_(False).eval()
    for parameter in there.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return asked(there, device), seconds(lambda: asked(there, device))


def seconds(run: Callable[[], object]) -> float:
    """How long a run takes, until the device has finished it."""
    run()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / 3


def test_a_unet_of_full_size_by_layers_takes_little(wide: UNet, device: torch.device) -> None:
    expected, usual = in_place(wide, device)
    gc.collect()
    torch.cuda.empty_cache()
    room = Room(device)
    room.by_layers = True
    rest(wide, room, "unet", torch.channels_last)
    for each in wide.parameters():
        assert isinstance(each, Resting)
        each.weight.rest = each.weight.ordered(each.weight.rest).pin_memory()
    answers: list[torch.Tensor] = []
    peak = peak_of(lambda: answers.extend(asked(wide, device) for _ in range(3)), device)
    print(f"peak {peak >> 20} MiB; {seconds(lambda: asked(wide, device)):.3f} s by layers, {usual:.3f} s in place")
    assert all(torch.equal(each, expected) for each in answers)
    assert peak < 500 << 20  # of 1639 MiB of weights: two of the largest, 64 MiB ahead, and the maps
