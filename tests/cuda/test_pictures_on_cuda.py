"""Whole pictures on a CUDA device: those of a CPU, whatever is asked for; the same bytes again; memory given back."""

import gc
import hashlib
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from random_networks import randomize
from sfumato.diffusion.presets import PRESETS
from sfumato.engine import Engine
from sfumato.events import Finished, Preview
from sfumato.generation import generate
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.lora import Target, create
from sfumato.operations import reconstruct
from sfumato.request import Control, Lora, Region, Request
from sfumato.speed import measure
from sfumato.weights.lora import networks_of
from sfumato.weights.lora_save import save_lora

pytestmark = pytest.mark.gpu

SIZE = 128
LEVELS = 1  # of 255: differences of 1e-5 decide a rounding here and there
# A cell is looked at more than others or not: one that is near the limit falls on the other side, and looks different.
DECIDES = {"self-attention guidance": 24}
PICTURE = {"prompt": "a red circle above a blue square", "negative_prompt": "green", "seed": 11, "steps": 4}


def drawn(engine: Engine, fields: dict[str, Any], **given: Any) -> list[Image.Image]:
    events = engine.run(Request(**{**PICTURE, **fields}), metadata=False, **given)
    return [event.picture for event in events if isinstance(event, Finished)]


def array(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.asarray(picture).astype(np.int16)


def largest(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(array(one) - array(other)).max())


def mean(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(array(one) - array(other)).mean())


def check_alike(found: Sequence[Image.Image], expected: Sequence[Image.Image], levels: int = LEVELS) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert array(other).std() > 5  # something is drawn
        print(f"largest {largest(one, other)}, mean {mean(one, other):.4f} of 255")
        assert largest(one, other) <= levels


@pytest.fixture(scope="module")
def here() -> Engine:
    return Engine("cpu", "float32", keep=2)


@pytest.fixture(scope="module")
def there(device: torch.device) -> Engine:
    return Engine(str(device), "float32", keep=2)


@cache
def photo() -> Image.Image:
    """A smooth picture without symmetry."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    channels = (columns * 255 // SIZE, rows * 255 // SIZE, (rows * columns // 64) % 256)
    return Image.fromarray(np.stack(channels, 2).astype(np.uint8))


@cache
def mask() -> Image.Image:
    """White in a part of the picture, with grey around."""
    drawn = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(drawn).ellipse((30, 40, 90, 100), fill=255)
    return drawn.filter(ImageFilter.GaussianBlur(4)).point(lambda level: 0 if level < 20 else level)


@pytest.mark.parametrize("sampler", PRESETS)
def test_every_sampler_draws_what_it_draws_on_a_cpu(sampler: str, here: Engine, there: Engine) -> None:
    asked = {"sampler": sampler, "count": 2, "batch": 2}
    check_alike(drawn(there, asked), drawn(here, asked))


REGIONS = (Region("a yellow square", "left"), Region("a green circle", "bottom right", weight=0.7))
FEATURES: dict[str, tuple[dict[str, Any], Sequence[Callable[[], Image.Image]]]] = {
    "plain": ({}, ()),
    "no guidance": ({"guidance": 1.0}, ()),
    "another size": ({"width": 104, "height": 152}, ()),
    "weights and BREAK": ({"prompt": "a (red:1.3) circle BREAK [blue] square"}, ()),
    "words that change": ({"prompt": "a [red:blue:0.5] circle and a [square|circle]"}, ()),
    "AND": ({"prompt": "a red circle AND a blue square :0.6"}, ()),
    "comfy's words": ({"prompt": "a (red:1.3) circle", "dialect": "comfy"}, ()),
    "compel's words": ({"prompt": "a red++ circle", "dialect": "compel"}, ()),
    "clip skip": ({"clip_skip": 1}, ()),
    "regions": ({"regions": REGIONS}, ()),
    "rescaled guidance": ({"guidance": 6.0, "guidance_rescale": 0.7, "guidance_interval": (0.1, 0.8)}, ()),
    "sequential noise": ({"noise": "sequential", "sampler": "euler_a"}, ()),
    "philox noise": ({"noise": "philox", "sampler": "euler_a"}, ()),
    "variation": ({"variation": (0.3, 77), "step_seed_delta": 31337, "sampler": "euler_a"}, ()),
    "seed size": ({"seed_size": (96, 96)}, ()),
    "hires, latent": ({"hires": {"scale": 1.5, "upscaler": "latent", "strength": 0.6}}, ()),
    "hires, pixels": ({"hires": {"scale": 1.5, "upscaler": "lanczos", "strength": 0.6}}, ()),
    "windows": ({"width": 192, "windows": (SIZE, 32)}, ()),
    "tiling": ({"tiling": "both"}, ()),
    "freeu": ({"freeu": True}, ()),
    "perturbed attention": ({"perturbed_attention": True}, ()),
    "self-attention guidance": ({"self_attention_guidance": True}, ()),
    "apg": ({"apg": {"eta": 0.2, "threshold": 5.0, "momentum": -0.5}, "guidance": 6.0}, ()),
    "dynamic thresholding": ({"dynamic_thresholding": {"percentile": 0.95}, "guidance": 9.0}, ()),
    "a start picture": ({"strength": 0.6}, (photo,)),
    "a start picture, filled up": ({"strength": 0.6, "width": 160, "resize_mode": "fill"}, (photo,)),
    "inpainting": ({"mask_blur": 3.0}, (photo, mask)),
    "inpainting, filled from around": ({"masked_content": "fill", "strength": 0.8}, (photo, mask)),
    "inpainting, masked only": ({"masked_only": True, "padding": 8}, (photo, mask)),
    "soft inpainting": ({"soft_inpainting": True}, (photo, mask)),
    "differential": ({"differential": True}, (photo, mask)),
    "outpainting": ({"outpaint": {"right": 32, "fill": "around"}}, (photo,)),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_draws_what_it_draws_on_a_cpu(feature: str, here: Engine, there: Engine) -> None:
    fields, pictures = FEATURES[feature]
    given = dict(zip(("image", "mask"), (make() for make in pictures), strict=False))
    check_alike(drawn(there, fields, **given), drawn(here, fields, **given), DECIDES.get(feature, LEVELS))


@pytest.mark.parametrize("fields", [{}, {"guidance": 1}, {"guidance_interval": (0.2, 0.9)}, {"strict": True}], ids=str)
def test_many_steps_draw_what_they_draw_on_a_cpu(fields: dict[str, Any], here: Engine, there: Engine) -> None:
    """From the fifth step on they are replayed."""
    asked = {"steps": 12, "sampler": "dpmpp_2m", **fields}
    check_alike(drawn(there, asked), drawn(here, asked))


def test_inpainting_keeps_every_byte_outside_of_the_mask(there: Engine) -> None:
    (edited,) = drawn(there, {}, image=photo(), mask=mask())
    outside = np.asarray(mask()) == 0
    assert np.array_equal(array(edited)[outside], array(photo())[outside])
    assert largest(edited, photo()) > 8


def test_a_lora_is_merged_as_on_a_cpu(here: Engine, there: Engine, tmp_path: Path) -> None:
    made = {}
    for name, network in networks_of(here.model()).items():
        made[name] = create(network, [Target("*attentions.*" if name == "unet" else "*.layers.*", 4)], seed=1)
        generator = torch.Generator().manual_seed(1)
        for _, adapter in made[name].items():
            adapter.up.data.normal_(0, 0.05, generator=generator)
    path = save_lora(tmp_path / "style.safetensors", made, overwrite=True)
    asked = {"loras": [Lora(str(path), 0.8)]}
    expected = drawn(here, asked)
    check_alike(drawn(there, asked), expected)
    assert largest(expected[0], drawn(here, {})[0]) > 3


@pytest.mark.parametrize("mode", ["balanced", "control"])
def test_a_controlnet_steers_as_on_a_cpu(mode: Any, here: Engine, there: Engine) -> None:
    network = ControlNet.of(here.model().unet)
    randomize(network)
    control = Control("random", weight=0.3, mode=mode, preprocessor="canny")
    request = Request(**PICTURE, controls=[control], strength=0.9)

    def steered(engine: Engine) -> list[Image.Image]:
        model = engine.model()
        twin = ControlNet(network.control)
        twin.load_state_dict(network.state_dict())
        known = replace(model, controls={"random": twin.eval().to(model.device)})
        return generate(known, request, image=photo(), metadata=False)

    expected = steered(here)
    check_alike(steered(there), expected)
    assert largest(expected[0], drawn(here, {"strength": 0.9}, image=photo())[0]) > 3


def test_pictures_of_other_families_are_those_of_a_cpu(
    here: Engine, there: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Tiny random models, which diffusers makes: velocity, nine channels, two text encoders."""
    pytest.importorskip("diffusers", reason="diffusers makes the tiny models")
    sys.path.append(str(Path(__file__).parents[1] / "operations"))
    from tiny_models import build

    folder = tmp_path_factory.mktemp("tiny")
    for kind in ("sd2", "inpaint", "sdxl"):
        build(kind, folder)
        given = {"image": photo(), "mask": mask()} if kind == "inpaint" else {}
        asked = {"model": str(folder / kind), "width": 64, "height": 64, "guidance": 5.0}
        check_alike(drawn(there, asked, **given), drawn(here, asked, **given))


def test_previews_reconstructions_and_speeds_are_made_there(there: Engine, here: Engine) -> None:
    events = list(there.run(Request(**PICTURE), metadata=False, preview_every=1))
    assert sum(isinstance(event, Preview) for event in events) == PICTURE["steps"] - 1  # type: ignore[operator]
    model = there.model()
    found, expected = reconstruct(model, photo()), reconstruct(here.model(), photo())
    assert largest(found.picture, expected.picture) <= LEVELS
    speed = measure(model, SIZE, SIZE)
    assert speed.limit > 0 and all(part.rate > 0 for part in speed.parts)


def test_the_same_request_gives_the_same_bytes(there: Engine, device: torch.device) -> None:
    asked = {"count": 2, "sampler": "dpmpp_2m_sde"}
    first = [picture.tobytes() for picture in drawn(there, asked)]
    assert [picture.tobytes() for picture in drawn(there, asked)] == first
    assert [picture.tobytes() for picture in drawn(Engine(str(device), "float32"), asked)] == first


AGAIN = """
import hashlib, sys, torch
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
torch.set_num_threads(1)
from sfumato.engine import Engine
from sfumato.events import Finished
from sfumato.request import Request
events = Engine(sys.argv[1], "float32").run(Request.from_json(sys.argv[2]), metadata=False)
print(*(hashlib.sha256(event.picture.tobytes()).hexdigest() for event in events if isinstance(event, Finished)))
"""


def test_a_new_process_gives_the_same_bytes(there: Engine, device: torch.device) -> None:
    asked = {"sampler": "euler_a", "count": 2}
    request = Request(**{**PICTURE, **asked})  # type: ignore[arg-type]
    command = [sys.executable, "-c", AGAIN, str(device), request.to_json()]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout.split()
    assert said == [hashlib.sha256(picture.tobytes()).hexdigest() for picture in drawn(there, asked)]


# Levels of 255, mean over a picture: numbers of 11 and 8 bits, whose roundings grow over the steps.
@pytest.mark.parametrize(("dtype", "levels"), [("float16", 1.0), ("bfloat16", 6.0)])
def test_half_precision_is_near(dtype: str, levels: float, there: Engine, device: torch.device) -> None:
    half = Engine(str(device), dtype)
    (found,), (expected,) = drawn(half, {"steps": 8}), drawn(there, {"steps": 8})
    assert half.model().dtype == getattr(torch, dtype)
    print(f"{dtype}: mean {mean(found, expected):.2f}, largest {largest(found, expected)} of 255")
    assert mean(found, expected) <= levels
    assert drawn(half, {"steps": 8})[0].tobytes() == found.tobytes()


@pytest.mark.parametrize("strict", [True, False])
def test_a_picture_in_company_is_the_picture_alone(strict: bool, there: Engine) -> None:
    fields = {"strict": True} if strict else {"batch": 3}
    together = drawn(there, {"count": 3, "sampler": "euler_a", **fields})
    for number, picture in enumerate(together):
        alone = {"seed": PICTURE["seed"] + number, "sampler": "euler_a", **({"strict": True} if strict else {})}  # type: ignore[operator]
        (other,) = drawn(there, alone)
        print(f"picture {number}: largest {largest(picture, other)} of 255")
        assert picture.tobytes() == other.tobytes() if strict else largest(picture, other) <= 2


def weights(model: Model) -> int:
    """The bytes of a model's networks."""
    networks = (model.unet, model.autoencoder, *model.text.encoders)
    return sum(each.numel() * each.itemsize for network in networks for each in network.parameters())


def test_memory_is_given_back_when_models_are_forgotten(device: torch.device) -> None:
    engine = Engine(str(device), "float32")
    drawn(engine, {})
    unet = weakref.ref(engine.model().unet)
    needed = weights(engine.model())
    before = taken(device)
    engine.forget()
    gc.collect()
    assert unet() is None
    if device.type != "cuda":
        return
    after = taken(device)
    assert before[0] - after[0] >= 0.99 * needed  # tensors
    torch.cuda.empty_cache()
    assert taken(device)[1] == after[1]  # nothing is kept from other programs that nobody uses
    print(f"held {before[0] >> 20} MiB of {before[1] >> 20} reserved, then {after[0] >> 20} of {after[1] >> 20}")
    for _ in range(2):  # and nothing piles up
        drawn(engine, {})
        engine.forget()
        gc.collect()
    assert taken(device)[0] <= after[0] + (1 << 20)


def taken(device: torch.device) -> tuple[int, int]:
    """Bytes of all tensors, and what PyTorch has taken from the device for them."""
    if device.type != "cuda":
        return 0, 0
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
