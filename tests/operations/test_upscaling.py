"""Pictures enlarged and drawn on: from a start picture, in windows, with a network; and what is told of it."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_models import SIZE, Pair, recorded, scene

from sfumato import operations as op
from sfumato.errors import RequestError
from sfumato.generation import generate
from sfumato.images import to_pixels
from sfumato.metadata import CHUNK, save
from sfumato.model import Model
from sfumato.nn.autoencoder import tile_areas
from sfumato.nn.upscaler import SRVGGNet
from sfumato.replay import replay
from sfumato.request import Hires, Region, Request, Windows
from sfumato.request.guides import Apg
from sfumato.upscaling import enlarged_picture
from sfumato.weights.hashing import hash_file
from sfumato.weights.locate import add_alias


def request(**changes: object) -> Request:
    fields = {"prompt": "a red house", "seed": 11, "steps": 4, "guidance": 5.0}
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state = SRVGGNet(features=8, convolutions=1, scale=2).state_dict()
    save_file(state, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_a_start_picture_is_enlarged_and_drawn_on_as_img2img_of_the_larger_one(tiny: Model) -> None:
    larger = scene().resize((2 * SIZE, 2 * SIZE), Image.Resampling.NEAREST)
    one_stream = {"noise": "sequential"}  # with keyed noise the posterior's draw would be the second pass's own
    direct = generate(tiny, request(strength=0.5, **one_stream), image=larger, metadata=False)[0]
    hires = {"scale": 2, "strength": 0.5, "upscaler": "nearest"}
    with recorded(tiny.unet) as calls:
        made = generate(tiny, request(strength=0.0, hires=hires, **one_stream), image=scene(), metadata=False)[0]
    assert len(calls) == 2
    assert made.tobytes() == direct.tobytes()


def test_windows_as_large_as_the_picture_change_nothing(tiny: Model) -> None:
    asked = request(width=SIZE, height=SIZE)
    whole = generate(tiny, asked, metadata=False)[0]
    same = request(width=SIZE, height=SIZE, windows=SIZE)
    assert generate(tiny, same, metadata=False)[0].tobytes() == whole.tobytes()


def test_windows_of_a_denoiser_that_sees_no_neighbours_are_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 20, 27, generator=generator)
    areas = tile_areas(20, 27, 8, 3)
    seen = []

    def denoise(part: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(tuple(part.shape[2:]))
        return part * sigma + 1

    made = op.windowed(denoise, areas, 3)(x, 0.5)
    assert torch.allclose(made, x * 0.5 + 1, atol=1e-6)
    assert len(seen) == len(areas) > 4
    assert set(seen) == {(8, 8)}


def test_a_picture_larger_than_the_window_is_asked_for_in_parts(tiny: Model) -> None:
    with recorded(tiny.unet) as calls:
        made = generate(tiny, request(width=2 * SIZE, height=SIZE, windows=(SIZE, 32), steps=2), metadata=False)[0]
    assert made.size == (2 * SIZE, SIZE)
    assert len(calls) == 2 * 3  # two steps, three windows of 8 cells with 4 in common over 16


def test_a_network_enlarges_between_the_passes_and_replays(tiny: Model, network: Path, tmp_path: Path) -> None:
    asked = request(width=SIZE, height=SIZE, hires={"upscaler": str(network), "strength": 0.5})
    (made,) = generate(tiny, asked)
    assert made.size == (2 * SIZE, 2 * SIZE)
    save(made, tmp_path / "made.png")
    assert "Hires upscaler: net" in made.info["parameters"]
    assert replay(tmp_path / "made.png", model=str(tiny.source)).outcome == "identical"
    with torch.random.fork_rng(devices=[]):
        save_file(SRVGGNet(features=8, convolutions=1, scale=2).state_dict(), network)
    told = replay(tmp_path / "made.png", model=str(tiny.source))
    assert told.outcome == "environment changed"
    assert "upscaler" in told.message


def test_a_network_is_found_by_the_name_that_it_was_given(
    tiny: Model, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    add_alias("sharp", network, kind="upscaler")
    by_path, by_name = (
        generate(tiny, request(width=SIZE, height=SIZE, hires={"upscaler": each, "strength": 0.5}))[0]
        for each in (str(network), "sharp")
    )
    assert by_name.tobytes() == by_path.tobytes()
    assert json.loads(by_name.info[CHUNK])["environment"]["upscaler"] == hash_file(network)
    assert enlarged_picture(scene(), Hires(upscaler="sharp"), torch.device("cpu")).size == (2 * SIZE, 2 * SIZE)


def test_an_enlarged_start_picture_with_windows_replays(tiny: Model, tmp_path: Path) -> None:
    scene().save(tmp_path / "start.png")
    hires = {"scale": 1.5, "strength": 0.5, "upscaler": "lanczos"}
    asked = request(strength=0.0, image=str(tmp_path / "start.png"), hires=hires, windows=True)
    assert Request.from_json(asked.to_json()) == asked
    (made,) = generate(tiny, asked)
    save(made, tmp_path / "made.png")
    assert made.size == (96, 96)
    assert replay(tmp_path / "made.png", model=str(tiny.source)).outcome == "identical"


def test_a_picture_is_enlarged_without_a_model(network: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    lanczos = enlarged_picture(scene(), Hires(scale=2, upscaler="nearest"), cpu)
    assert lanczos.tobytes() == scene().resize((2 * SIZE, 2 * SIZE), Image.Resampling.NEAREST).tobytes()
    picture = scene()
    picture.info["parameters"] = "a\nSteps: 1, Sampler: x, Seed: 3"
    made = enlarged_picture(picture, Hires(size=(100, 60), upscaler=str(network)), cpu)
    assert made.size == (100, 60)
    assert made.info["parameters"].endswith("Seed: 3, Postprocess upscaler: net")
    assert to_pixels([made]).std() > 0.1


@pytest.mark.parametrize(
    ("windows", "field"),
    [(8, "windows.size"), ((64, 64), "windows.overlap"), ({"side": 3}, "windows"), ("64", "windows.size")],
)
def test_wrong_windows_are_refused_by_name(windows: object, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        request(windows=windows)
    assert caught.value.field == field
    assert Windows().filled(512) == Windows(512, 128)


@pytest.mark.parametrize(
    ("kind", "changes", "what"),
    [
        ("sd1", {"regions": (Region("a cat", (0, 0, 0.5, 1)),)}, "regions"),
        ("sd1", {"apg": Apg(momentum=-0.5)}, "momentum"),
        ("instruct", {}, "InstructPix2Pix"),
        ("inpaint", {}, "nine-channel"),
    ],
)
def test_windows_are_refused_with_what_sees_the_whole(
    pair: Callable[[str], Pair], kind: str, changes: dict[str, object], what: str
) -> None:
    image = None if kind == "sd1" else scene()
    asked = request(width=2 * SIZE, height=SIZE, windows=SIZE, **changes)
    with recorded(pair(kind).ours.unet) as calls, pytest.raises(RequestError, match=what) as caught:
        generate(pair(kind).ours, asked, image=image, metadata=False)
    assert (caught.value.field, calls) == ("windows", [])


def test_what_cannot_be_run_is_refused(tiny: Model) -> None:
    with pytest.raises(RequestError, match=r"no upscaler 'missing.pth'.*lanczos"):
        generate(tiny, request(width=SIZE, height=SIZE, hires={"upscaler": "missing.pth"}))
    mask = scene().convert("L")
    with pytest.raises(RequestError, match="mask"):
        generate(tiny, request(hires=2), image=scene(), mask=mask)


@pytest.mark.slow  # attention of 40 000 cells on all others, twice
@pytest.mark.parametrize("network", ["decoder", "encoder"])
@torch.no_grad()
def test_a_large_picture_goes_through_the_autoencoder_in_bands_that_equal_the_whole(tiny: Model, network: str) -> None:
    # against the whole in float64: PyTorch's float32 group norm of a large channels-last map is itself off by 1e-3
    exact = deepcopy(tiny.autoencoder).double()
    generator = torch.Generator().manual_seed(1)
    if network == "decoder":
        latent = torch.randn(1, 4, 200, 200, generator=generator)
        found, expected = op.decode(tiny, latent), exact.decode(latent.double() / tiny.scaling_factor)
    else:
        pixels = torch.rand(1, 3, 1600, 1600, generator=generator)
        found = op.encode_image(tiny, pixels).mean
        expected = exact.encode(pixels.double()).mean * tiny.scaling_factor
    assert float((found - expected).norm() / expected.norm()) <= 1e-5
