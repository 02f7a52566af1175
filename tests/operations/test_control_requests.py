"""A request with controls: what it draws, what its pictures say, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_lora_requests import lora_file
from tiny_models import SIZE, Pair, random_weights, scene

from sfumato.controls.steering import level_weights, residual_weights
from sfumato.diffusion.presets import PRESETS
from sfumato.engine import Engine
from sfumato.errors import RequestError, WeightsError
from sfumato.events import Finished
from sfumato.generation import generate
from sfumato.metadata import CHUNK, PARAMETERS, describe, parse_infotext, pixels_digest, save
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.replay import replay
from sfumato.request import Control, ControlMode, Lora, Request
from sfumato.weights.controls import with_controls

COMMON: dict[str, Any] = {"prompt": "a cat", "seed": 3, "steps": 3, "width": SIZE, "height": SIZE}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("controls")


@pytest.fixture(scope="module")
def controlnet(pair: Callable[[str], Pair], folder: Path) -> str:
    network = random_weights(ControlNet.of(pair("sd1").ours.unet), 11)
    save_file(network.state_dict(), folder / "canny.safetensors")
    return str(folder / "canny.safetensors")


@pytest.fixture(scope="module")
def adapter(folder: Path) -> str:
    network = random_weights(T2IAdapter(T2IAdapterConfig(in_channels=1, channels=(32, 64))), 12)
    save_file(network.state_dict(), folder / "sketch.safetensors")
    return str(folder / "sketch.safetensors")


@pytest.fixture(scope="module")
def picture(folder: Path) -> str:
    scene(80, 60).save(folder / "pose.png")
    return str(folder / "pose.png")


def drawn(engine: Engine, model: Model, *controls: Control, **changes: Any) -> list[Image.Image]:
    given = {name: changes.pop(name) for name in ("image", "mask", "pictures") if name in changes}
    request = Request(**{**COMMON, "model": str(model.source), "controls": controls, **changes})
    return [event.picture for event in engine.run(request, **given) if isinstance(event, Finished)]


def difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def test_what_counts_nothing_or_never_acts_changes_no_byte(
    engine: Engine, tiny: Model, controlnet: str, adapter: str, picture: str, tmp_path: Path
) -> None:
    (plain,) = drawn(engine, tiny)
    save_file(ControlNet.of(tiny.unet).state_dict(), tmp_path / "new.safetensors")
    for control in (
        Control(controlnet, picture, weight=0),
        Control(controlnet, picture, start=0.5, end=0.5),
        Control(adapter, picture, weight=0),
        Control(str(tmp_path / "new.safetensors"), picture),
    ):
        assert drawn(engine, tiny, control)[0].tobytes() == plain.tobytes(), control
    for control in (Control(controlnet, picture), Control(adapter, picture)):
        assert difference(drawn(engine, tiny, control)[0], plain) > 20


@pytest.mark.parametrize("sampler", [name for name in PRESETS if not name.endswith("karras")])
def test_controls_act_in_every_sampler_and_as_alone_in_a_batch(
    sampler: str, engine: Engine, tiny: Model, controlnet: str, adapter: str, picture: str
) -> None:
    controls = (Control(controlnet, picture, end=0.7), Control(adapter, picture, weight=0.5, mode="control"))
    together = drawn(engine, tiny, *controls, sampler=sampler, steps=2, count=2, batch=2)
    (alone,) = drawn(engine, tiny, *controls, sampler=sampler, steps=2, seed=4)
    assert difference(together[1], alone) <= 2  # kernels round otherwise for other batches
    assert difference(alone, drawn(engine, tiny, sampler=sampler, steps=2, seed=4)[0]) > 20


def test_a_strict_picture_has_the_same_bytes_alone_and_in_company(
    engine: Engine, tiny: Model, controlnet: str, picture: str
) -> None:
    control = Control(controlnet, picture, mode="guess")
    strict = drawn(engine, tiny, control, count=2, strict=True)
    assert strict[1].tobytes() == drawn(engine, tiny, control, seed=4, strict=True)[0].tobytes()


def test_every_mode_is_another_and_guidance_1_leaves_the_prompts_branch_alone(
    engine: Engine, tiny: Model, controlnet: str, picture: str
) -> None:
    modes: tuple[ControlMode, ...] = ("balanced", "prompt", "control", "guess")
    controls = [Control(controlnet, picture, mode=mode) for mode in modes]
    assert len({drawn(engine, tiny, each)[0].tobytes() for each in controls}) == 4
    alone = {each.mode: drawn(engine, tiny, each, guidance=1.0)[0].tobytes() for each in controls}
    assert alone["prompt"] == alone["control"]  # they differ on the other branch alone
    assert alone["balanced"] != alone["guess"] != alone["control"]


def test_the_weights_of_the_modes_are_those_of_the_peers() -> None:
    soft = residual_weights("prompt", 13)[0]
    assert torch.allclose(soft, torch.tensor([0.825 ** (12 - i) for i in range(13)]))
    assert residual_weights("control", 10)[0, -1] == 1
    assert torch.allclose(residual_weights("guess", 13)[0], torch.logspace(-1, 0, 13))
    assert level_weights("prompt", 4)[0].tolist() == pytest.approx([0.25, 0.62, 0.825, 1.0])
    assert level_weights("prompt", 2)[0].tolist() == pytest.approx([0.825, 1.0])


def test_controls_add_up_in_any_order(engine: Engine, tiny: Model, controlnet: str, adapter: str, picture: str) -> None:
    controls = [Control(controlnet, picture, weight=0.5), Control(adapter, picture), Control(controlnet, picture)]
    one, other = (drawn(engine, tiny, *each)[0] for each in (controls, controls[::-1]))
    assert difference(one, other) <= 1
    (twice,) = drawn(engine, tiny, Control(controlnet, picture, weight=0.5), Control(controlnet, picture, weight=0.7))
    assert difference(twice, drawn(engine, tiny, Control(controlnet, picture, weight=1.2))[0]) <= 1


def test_controls_act_beside_loras_and_leave_the_model_as_it_was(
    engine: Engine, tiny: Model, controlnet: str, picture: str, tmp_path: Path
) -> None:
    style = Lora(str(lora_file(tiny, tmp_path / "style.safetensors")))
    (plain,) = drawn(engine, tiny)
    pictures = [
        drawn(engine, tiny, *controls, loras=loras)[0].tobytes()
        for controls in ((), (Control(controlnet, picture),))
        for loras in ((), (style,))
    ]
    assert len(set(pictures)) == 4
    assert drawn(engine, tiny)[0].tobytes() == plain.tobytes()


def test_controls_act_on_prompts_that_change_and_on_several_at_once(
    engine: Engine, tiny: Model, controlnet: str, picture: str
) -> None:
    control = Control(controlnet, picture, mode="control")
    for prompt in ("[a cat:a dog:0.5]", "a cat AND a dog:0.5"):
        (plain,), (steered,) = (drawn(engine, tiny, *each, prompt=prompt) for each in ((), (control,)))
        assert difference(plain, steered) > 20
    (one,), (several,) = (drawn(engine, tiny, control, prompt=each) for each in ("a cat", "a cat:0.5 AND a cat:0.5"))
    assert difference(one, several) <= 1


def test_a_second_pass_is_steered_at_its_own_size(engine: Engine, tiny: Model, controlnet: str, picture: str) -> None:
    control = Control(controlnet, picture, "canny")
    hires = {"scale": 1.5, "strength": 0.7}
    (plain,), (steered,) = (drawn(engine, tiny, *each, hires=hires) for each in ((), (control,)))
    assert steered.size == (SIZE * 3 // 2, SIZE * 3 // 2)
    assert difference(plain, steered) > 20


def test_a_control_network_is_read_once_until_its_file_changes(
    engine: Engine, tiny: Model, controlnet: str, picture: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.safetensors"
    save_file(random_weights(ControlNet.of(tiny.unet), 1).state_dict(), path)
    request = Request(**COMMON, model=str(tiny.source), controls=[Control(str(path), picture)])
    first = engine.model_for(request).controls[str(path)]
    assert engine.model_for(request).controls[str(path)] is first
    save_file(random_weights(ControlNet.of(tiny.unet), 2).state_dict(), path)
    assert engine.model_for(request).controls[str(path)] is not first
    assert not engine.model_for(replace(request, controls=())).controls


def test_a_start_picture_is_seen_where_a_control_names_none(
    engine: Engine, tiny: Model, controlnet: str, folder: Path
) -> None:
    scene().save(folder / "start.png")
    own, named = (Control(controlnet, image, "canny") for image in (None, str(folder / "start.png")))
    pictures = [drawn(engine, tiny, each, image=scene(), strength=0.7)[0] for each in (own, named)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    with pytest.raises(RequestError, match="without an image"):
        drawn(engine, tiny, own)


def test_masked_only_shows_a_control_the_same_part(engine: Engine, tiny: Model, controlnet: str) -> None:
    start, mask = scene(96, 96), Image.new("L", (96, 96), 0)
    mask.paste(255, (40, 40, 80, 80))
    given = {"image": start, "mask": mask, "masked_only": True, "padding": 4, "width": 64, "height": 64}
    named = Control(controlnet, "whole", "canny")
    (found,) = drawn(engine, tiny, Control(controlnet, None, "canny"), **given)
    (same,) = drawn(engine, tiny, named, **given, pictures={"whole": start})
    assert found.tobytes() == same.tobytes()
    assert found.crop((0, 0, 40, 96)).tobytes() == start.crop((0, 0, 40, 96)).tobytes()


def test_pictures_are_handed_over_by_their_digests_and_replayed_from_beside(
    engine: Engine, tiny: Model, controlnet: str, adapter: str, tmp_path: Path
) -> None:
    poses = [scene(70, 50), scene(50, 70).rotate(90)]
    names = [f"sha256:{pixels_digest(each)}" for each in poses]
    controls = [Control(controlnet, names[0], "canny", 0.8, 0.1, 0.9, "prompt"), Control(adapter, names[1])]
    (found,) = drawn(engine, tiny, *controls, pictures=dict(zip(names, poses, strict=True)))
    for place, each in enumerate(poses):
        each.save(tmp_path / f"pose{place}.png")
    paths = [replace(control, image=str(tmp_path / f"pose{place}.png")) for place, control in enumerate(controls)]
    (read,) = drawn(engine, tiny, *paths)
    assert read.tobytes() == found.tobytes()
    path = save(found, tmp_path / "made.png")
    request = describe(path).request
    assert request is not None
    assert list(request.controls) == [replace(each, options=each.options) for each in controls]
    record = json.loads(found.info[CHUNK])
    assert record["inputs"] == {"control 0": names[0], "control 1": names[1]}
    assert set(record["model"]["hashes"]) >= {f"control {controlnet}", f"control {adapter}"}
    assert replay(path, engine=engine).outcome == "identical"
    (tmp_path / "pose1.png").unlink()
    assert replay(path, engine=engine).outcome == "missing picture"
    assert replay(path, engine=engine, pictures={names[1]: poses[1]}).outcome == "identical"
    with pytest.raises(RequestError, match="must be handed over"):
        drawn(engine, tiny, controls[0])


def test_a1111_reads_the_controls(engine: Engine, tiny: Model, controlnet: str, picture: str) -> None:
    control = Control(controlnet, picture, "canny", 0.8, 0.1, 0.9, "prompt", "fill", {"low": 50})
    (found,) = drawn(engine, tiny, control)
    text = parse_infotext(found.info[PARAMETERS]).parameters["ControlNet 0"]
    digest = json.loads(found.info[CHUNK])["model"]["hashes"][f"control {controlnet}"]
    assert text == (
        f"Module: canny, Model: canny [{digest[:8]}], Weight: 0.8, Resize Mode: Resize and Fill, Threshold A: 50, "
        "Threshold B: 200, Guidance Start: 0.1, Guidance End: 0.9, Pixel Perfect: True, "
        "Control Mode: My prompt is more important"
    )


def test_only_the_networks_of_the_request_are_recorded(
    tiny: Model, controlnet: str, adapter: str, picture: str
) -> None:
    model = with_controls(tiny, [controlnet, adapter])
    (found,) = generate(model, Request(**COMMON, controls=[Control(adapter, picture)]))
    hashes = json.loads(found.info[CHUNK])["model"]["hashes"]
    assert f"control {adapter}" in hashes
    assert f"control {controlnet}" not in hashes
    with pytest.raises(RequestError, match="but the model has no control network"):
        generate(tiny, Request(**COMMON, controls=[Control(adapter, picture)]))


def test_what_does_not_go_together_is_told(
    engine: Engine, pair: Callable[[str], Pair], tiny: Model, controlnet: str, adapter: str, picture: str
) -> None:
    with pytest.raises(WeightsError, match="is not this ControlNet: 70 tensors missing"):
        drawn(engine, pair("sdxl").ours, Control(controlnet, picture))
    with pytest.raises(RequestError, match="needs a mask"):
        drawn(engine, tiny, Control(controlnet, picture, "inpaint"))
    with pytest.raises(RequestError, match="for ControlNets alone"):
        drawn(engine, tiny, Control(adapter, picture, mode="guess"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"weight": 11}, r"controls: weight is 11; it must be a number from -10 to 10"),
        ({"start": 0.9, "end": 0.1}, "start 0.9 after end 0.1"),
        ({"start": -1}, "controls: start is -1"),
        ({"mode": "strong"}, "mode 'strong'; it must be one of balanced, prompt, control, guess"),
        ({"resize": "zoom"}, "resize 'zoom'"),
        ({"preprocessor": "cany"}, "did you mean 'canny'"),
        ({"preprocessor": "canny", "options": {"lo": 1}}, "those of canny are: low, high"),
        ({"model": ""}, "controls is ''"),
        ({"modle": "x"}, "each is an object of model, image"),
    ],
)
def test_a_wrong_control_is_told_by_field_value_and_range(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told) as error:
        Request(controls=[{"model": "canny", **fields}])  # type: ignore[list-item]
    assert error.value.field == "controls"


def test_a_request_with_controls_is_the_same_through_json() -> None:
    controls = [Control("a", "b.png", "canny", 0.5, 0.1, 0.7, "guess", "stretch", {"low": 1.5}), Control("c")]
    request = Request(prompt="x", controls=controls)
    assert Request.from_json(request.to_json()) == request
    assert "controls" not in Request(prompt="x").to_dict()
