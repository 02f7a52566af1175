"""Pictures that a companion inpaints: as the nine-channel model that it comes to, wherever a mask is, and told so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from companions import by_hand, nine_channels, with_companion
from PIL import Image
from safetensors.torch import save_file
from tiny_models import SIZE, Pair, random_weights, scene

from sfumato.engine import Engine
from sfumato.errors import RequestError, WeightsError
from sfumato.events import Finished
from sfumato.generation import generate
from sfumato.job import prepare
from sfumato.metadata import CHUNK, save
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.lora import Adapters, Target, create
from sfumato.replay import replay
from sfumato.request import Control, Lora, Request
from sfumato.weights.component_files import COMPANION_FILE
from sfumato.weights.load import load, open_model
from sfumato.weights.lora import with_loras
from sfumato.weights.lora_save import save_lora
from sfumato.weights.streamed import read_streamed

MASK = Image.new("L", (SIZE, SIZE))
MASK.paste(255, (8, 16, 40, 56))


@pytest.fixture(scope="module")
def folder(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_companion(tiny.source, tmp_path_factory.mktemp("companion") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.fixture(scope="module")
def nine(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return nine_channels(tiny, tmp_path_factory.mktemp("nine") / "model")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("cpu", keep=3)


def request(**changes: Any) -> Request:
    return Request(**{"prompt": "a red house", "seed": 11, "steps": 3, "guidance": 5.0, **changes})


def drawn(
    model: Model, image: Image.Image | None = None, mask: Image.Image | None = MASK, **changes: Any
) -> Image.Image:
    (picture,) = generate(model, request(**changes), image=image or scene(), mask=mask, metadata=False)
    return picture


def apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def masking(model: Model, image: Image.Image | None = None, mask: Image.Image | None = MASK, **changes: Any) -> Any:
    """What the resolved request says, with whether the network that draws sees the mask."""
    job = prepare(model, request(**changes), image=image or scene(), mask=mask)
    assert job.model.family.inpainting is (job.request.masking == "network")
    assert job.model.unet.config.in_channels == (9 if job.model.family.inpainting else 4)
    return job.request.masking


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strength": 0.7, "masked_content": "fill"},
        {"masked_only": True, "padding": 4, "width": SIZE, "height": SIZE, "mask_blur": 2.0},
        {"sampler": "dpmpp_sde", "noise": "sequential", "mask_invert": True},
        {"regions": [{"prompt": "a dog", "area": [0, 0, 0.5, 1]}], "tiling": "x"},
        {"freeu": True, "perturbed_attention": True, "self_attention_guidance": True},
        {"apg": True, "guidance_rescale": 0.5},
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_it_draws_what_the_nine_channel_model_draws(model: Model, nine: Model, changes: dict[str, Any]) -> None:
    # the sum is the same in another order: a weight is rounded once on both sides
    assert apart(drawn(model, **changes), drawn(nine, **changes)) <= 1
    assert apart(drawn(model, **changes), drawn(model, masking="blend", **changes)) > 10


def test_outpainting_and_batches_are_drawn_by_it_too(model: Model, nine: Model) -> None:
    sides = {"right": 32, "feather": 8}
    asked = request(outpaint=sides, count=3, batch=2)
    for one, other in zip(*(generate(each, asked, image=scene()) for each in (model, nine)), strict=True):
        assert one.size == (SIZE + 32, SIZE)
        assert apart(one, other) <= 1
        assert json.loads(one.info[CHUNK])["request"]["masking"] == "network"


def test_its_tensors_are_the_sum_and_all_others_are_shared(model: Model, tiny: Model) -> None:
    found = model.inpainter
    assert found is not None
    expected = by_hand(tiny)
    state, plain = found.unet.state_dict(), model.unet.state_dict()
    assert state.keys() == expected.keys() == plain.keys()
    changed = {name for name in state if state[name].data_ptr() != plain[name].data_ptr()}
    assert {"conv_in.weight", "conv_in.bias"} < changed < state.keys()
    for name, tensor in state.items():
        if name in changed:
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
        else:
            assert tensor.data_ptr() == plain[name].data_ptr()
    assert not any(name in changed for name in state if "norm" in name or "conv_out" in name)
    assert (found.autoencoder, found.text, found.name) == (model.autoencoder, model.text, model.name)
    assert found.inpainter is None


def test_nothing_is_read_or_made_before_something_is_inpainted(folder: Path) -> None:
    fresh = load(folder)
    companion: Any = fresh.companion
    reads: list[str] = []

    class Watched(type(companion.tensors)):  # type: ignore[misc]
        def read_into(self, name: str, tensor: torch.Tensor) -> None:
            reads.append(name)
            super().read_into(name, tensor)

    companion.tensors.__class__ = Watched
    generate(fresh, request(), metadata=False)
    drawn(fresh, mask=None, strength=0.5)
    assert not reads and not companion._made
    first = prepare(fresh, request(), image=scene(), mask=MASK).model.unet
    assert reads
    assert prepare(fresh, request(), image=scene(), mask=MASK).model.unet is first  # made once
    fresh.to(dtype=torch.float64)
    moved = prepare(fresh, request(), image=scene(), mask=MASK).model.unet
    assert {tensor.dtype for tensor in moved.state_dict().values()} == {torch.float64}


def test_pictures_without_a_mask_are_as_without_a_companion(model: Model, tiny: Model) -> None:
    for given in ({}, {"image": scene()}):
        one, other = (generate(each, request(), **given)[0] for each in (model, tiny))  # type: ignore[arg-type]
        assert one.tobytes() == other.tobytes()
        records = [json.loads(each.info[CHUNK]) for each in (one, other)]
        assert records[0]["model"]["hashes"] == records[1]["model"]["hashes"]
        assert "masking" not in records[0]["request"]


@pytest.mark.parametrize(
    "changes",
    [
        {"masking": "blend"},
        {"differential": True},
        {"soft_inpainting": True},
        {"windows": 64, "width": 96, "height": 64},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_network_that_sees_the_mask_cannot_do_is_blended_as_before(
    model: Model, tiny: Model, changes: dict[str, Any]
) -> None:
    assert masking(model, **changes) == "blend"
    plain = {name: value for name, value in changes.items() if name != "masking"}
    assert drawn(model, **changes).tobytes() == drawn(tiny, **plain).tobytes()
    if plain:
        with pytest.raises(RequestError, match=f"masking is 'network' with {next(iter(plain))}") as caught:
            drawn(model, masking="network", **changes)
        assert caught.value.field == "masking"


def test_a_refiner_is_blended(pair: Callable[[str], Pair], tmp_path: Path) -> None:
    source = pair("sdxl").ours.source
    model = load(with_companion(source, tmp_path / "sdxl"))
    assert masking(model) == "network"
    refined = replace(model, refiner=pair("sdxl").ours)
    assert masking(refined, refiner={"model": str(source), "at": 0.5}) == "blend"


def test_how_a_mask_acts_is_refused_where_it_cannot(model: Model, tiny: Model, nine: Model) -> None:
    for given, other, message in (
        ("network", tiny, "has none that sees a mask"),
        ("blend", nine, "is an inpainting model"),
    ):
        with pytest.raises(RequestError, match=message) as caught:
            drawn(other, masking=given)
        assert caught.value.field == "masking"
    with pytest.raises(RequestError, match="masking is 'blend' but there is no mask"):
        drawn(model, mask=None, masking="blend")
    with pytest.raises(RequestError, match="masking is 'net'; it must be one of network, blend"):
        request(masking="net")
    assert drawn(nine, masking="network").tobytes() == drawn(nine).tobytes()


def lora(model: Model, path: Path, *targets: str) -> str:
    adapters: Adapters = create(model.unet, [Target(pattern, 2) for pattern in targets], seed=3)
    for number, (_, adapter) in enumerate(adapters.items()):
        torch.nn.init.normal_(adapter.up, std=0.1, generator=torch.Generator().manual_seed(number))
    return str(save_lora(path, {"unet": adapters}))


@pytest.mark.parametrize("targets", [("*.attn?.to_*",), ("*.attn?.to_*", "conv_in")])
def test_a_lora_adds_to_it_what_it_adds_to_the_model(
    model: Model, tiny: Model, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    named = Lora(lora(tiny, tmp_path / "style.safetensors", *targets), 0.8)
    both, companion = with_loras(model, [named]).inpainter, model.inpainter
    assert both is not None and companion is not None
    styled = with_loras(tiny, [named]).unet.state_dict()
    plain, wide = tiny.unet.state_dict(), companion.unet.state_dict()
    for name, tensor in both.unet.state_dict().items():
        added, before = styled[name] - plain[name], wide[name]
        if name == "conv_in.weight":
            added = torch.cat([added, torch.zeros_like(before[:, 4:])], dim=1)
        torch.testing.assert_close(tensor, before + added, rtol=0, atol=1e-6)


def test_the_engine_takes_loras_and_controls_with_it(
    engine: Engine, folder: Path, nine: Model, tiny: Model, tmp_path: Path
) -> None:
    style = lora(tiny, tmp_path / "style.safetensors", "*.attn?.to_*")
    save_file(random_weights(ControlNet.of(tiny.unet), 11).state_dict(), tmp_path / "canny.safetensors")
    asked = request(loras=[style], controls=[Control(str(tmp_path / "canny.safetensors"))])
    found = [
        event.picture
        for source in (folder, nine.source)
        for event in engine.run(replace(asked, model=str(source)), image=scene(), mask=MASK)
        if isinstance(event, Finished)
    ]
    assert apart(*found) <= 1
    record = json.loads(found[0].info[CHUNK])
    assert record["request"]["masking"] == "network"
    hashes = record["model"]["hashes"]
    assert {"unet", "inpainting", f"lora {style}", f"control {tmp_path / 'canny.safetensors'}"} <= hashes.keys()
    assert hashes["inpainting"] != hashes["unet"]


def test_a_picture_that_it_drew_replays_and_one_from_before_it_too(
    engine: Engine, folder: Path, tiny: Model, tmp_path: Path
) -> None:
    place = tmp_path / "model"
    paths = {}
    scene().save(tmp_path / "start.png")
    MASK.save(tmp_path / "mask.png")

    def made(name: str, **changes: Any) -> None:
        asked = request(model=str(place), **changes)
        (event,) = [each for each in Engine("cpu").run(asked, image=scene(), mask=MASK) if isinstance(each, Finished)]
        paths[name] = save(event.picture, tmp_path / f"{name}.png")

    with_companion(tiny.source, place)
    (place / COMPANION_FILE).rename(tmp_path / COMPANION_FILE)
    made("before")
    (tmp_path / COMPANION_FILE).rename(place / COMPANION_FILE)
    made("now")
    made("blended", masking="blend")
    outcomes = {name: replay(path, engine=engine) for name, path in paths.items()}
    assert {name: each.outcome for name, each in outcomes.items()} == dict.fromkeys(paths, "identical")
    assert apart(*(Image.open(paths[name]) for name in ("before", "blended"))) == 0
    assert apart(*(Image.open(paths[name]) for name in ("before", "now"))) > 10
    (place / COMPANION_FILE).unlink()
    engine.forget()
    gone = replay(paths["now"], engine=engine)
    assert (gone.outcome, gone.picture) == ("missing weight", None)
    assert "inpainting was " in gone.message
    anyway = replay(paths["now"], engine=engine, verify=False)
    assert anyway.outcome == "environment changed"
    assert anyway.picture is not None and apart(anyway.picture, Image.open(paths["before"])) == 0
    assert replay(paths["before"], engine=engine).outcome == "identical"


def test_a_companion_of_another_unet_is_refused_where_it_is_used(
    pair: Callable[[str], Pair], folder: Path, tmp_path: Path
) -> None:
    other = with_companion(pair("sd2").ours.source, tmp_path / "sd2")
    (folder / COMPANION_FILE).rename(tmp_path / "mine")
    try:
        (folder / COMPANION_FILE).write_bytes((other / COMPANION_FILE).read_bytes())
        model = load(folder)
        generate(model, request(), metadata=False)
        with pytest.raises(WeightsError, match="was trained beside another UNet"):
            drawn(model)
        assert masking(model, masking="blend") == "blend"
    finally:
        (tmp_path / "mine").replace(folder / COMPANION_FILE)


def test_with_weights_on_the_disk_it_is_left_out_unless_it_is_asked_for(folder: Path, model: Model) -> None:
    streaming = Engine("cpu", memory="low")
    found = {}
    for masking in (None, "network"):
        asked = request(model=str(folder), masking=masking)
        (event,) = [each for each in streaming.run(asked, image=scene(), mask=MASK) if isinstance(each, Finished)]
        record = json.loads(event.picture.info[CHUNK])
        found[masking] = (record["request"].get("masking"), "inpainting" in record["model"]["hashes"])
    assert found == {None: (None, False), "network": ("network", True)}
    streamed = read_streamed(open_model(folder), "streamed", torch.float32)
    assert apart(drawn(streamed), drawn(model)) <= 1
