"""A request with LoRAs: what it draws, what its pictures say, and that the model is the same afterwards."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import SIZE, Pair

from sfumato.engine import Engine
from sfumato.errors import ModelNotFoundError, RequestError, WeightsError
from sfumato.events import Finished
from sfumato.generation import generate
from sfumato.metadata import CHUNK, PARAMETERS, describe, save
from sfumato.model import Model
from sfumato.nn.lora import Target, create
from sfumato.replay import replay
from sfumato.request import Lora, Request
from sfumato.weights.load import load
from sfumato.weights.lora import networks_of
from sfumato.weights.lora_save import save_lora


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("cpu")


def lora_file(model: Model, path: Path, seed: int = 0) -> Path:
    """A LoRA with random numbers for all of a model's networks."""
    made = {}
    for name, network in networks_of(model).items():
        made[name] = create(network, [Target("*attentions.*" if name == "unet" else "*.layers.*", 4)], seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for _, adapter in made[name].items():
            adapter.up.data.normal_(0, 0.2, generator=generator)
    return save_lora(path, made, overwrite=True)


def request(model: Model, *loras: object, **changes: object) -> Request:
    fields = {"prompt": "a cat", "seed": 3, "steps": 2, "width": SIZE, "height": SIZE, "model": str(model.source)}
    return Request(loras=loras, **{**fields, **changes})  # type: ignore[arg-type]


def drawn(engine: Engine, asked: Request) -> Image.Image:
    (event,) = [event for event in engine.run(asked) if isinstance(event, Finished)]
    return event.picture


def test_a_lora_changes_one_picture_and_not_the_next(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    path = str(lora_file(tiny, tmp_path / "style.safetensors"))
    base = engine.model(str(tiny.source))
    weights = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in networks_of(base).items()}
    plain = drawn(engine, request(tiny)).tobytes()
    styled = drawn(engine, request(tiny, Lora(path))).tobytes()
    assert styled != plain
    assert drawn(engine, request(tiny, Lora(path, 0.0))).tobytes() == plain
    assert drawn(engine, request(tiny, Lora(path, 1.0, 0.0))).tobytes() not in (plain, styled)
    assert drawn(engine, request(tiny, Lora(path, 0.0, 1.0))).tobytes() not in (plain, styled)
    half_done = engine.run(request(tiny, Lora(path)))
    next(half_done)
    half_done.close()  # cancelled
    assert drawn(engine, request(tiny)).tobytes() == plain
    assert engine.model(str(tiny.source)) is base
    for name, network in networks_of(base).items():
        assert all(torch.equal(weights[name][key], value) for key, value in network.state_dict().items())


def test_several_loras_add_up_in_any_order_and_are_kept_until_their_files_change(
    engine: Engine, tiny: Model, tmp_path: Path
) -> None:
    one, other = (Lora(str(lora_file(tiny, tmp_path / f"{n}.safetensors", n)), 0.5) for n in (1, 2))
    both = engine.model(str(tiny.source), None, [one, other])
    assert engine.model(str(tiny.source), None, [one, other]) is both
    alone = engine.model(str(tiny.source), None, [one])
    weight = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    base = engine.model(str(tiny.source)).unet.state_dict()[weight]
    second = engine.model(str(tiny.source), None, [other]).unet.state_dict()[weight]
    sum_of_both = base + (alone.unet.state_dict()[weight] - base) + (second - base)
    torch.testing.assert_close(both.unet.state_dict()[weight], sum_of_both, rtol=0, atol=1e-6)
    before = engine.model(str(tiny.source), None, [one]).unet.state_dict()[weight]
    lora_file(tiny, Path(one.name), 9)
    assert not torch.equal(engine.model(str(tiny.source), None, [one]).unet.state_dict()[weight], before)


def test_a_model_that_was_loaded_with_loras_draws_what_the_engine_draws(
    engine: Engine, tiny: Model, tmp_path: Path
) -> None:
    lora = Lora(str(lora_file(tiny, tmp_path / "style.safetensors")), 0.8)
    asked = request(tiny, lora)
    model = load(tiny.source, loras=[lora])
    (picture,) = generate(model, asked)
    assert picture.tobytes() == drawn(engine, asked).tobytes()
    (same,) = generate(model, replace(asked, loras=()))  # the model has it, whether the request says so or not
    assert same.tobytes() == picture.tobytes()
    assert json.loads(same.info[CHUNK])["request"]["loras"] == [lora.to_dict()]
    for other in (tiny, load(tiny.source, loras=[Lora(lora.name, 0.7)])):
        with pytest.raises(RequestError, match=r"loras is .*but the model has") as caught:
            generate(other, asked)
        assert caught.value.field == "loras"


def test_the_picture_says_which_loras_and_which_files(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    path = lora_file(tiny, tmp_path / "my style.safetensors")
    asked = request(tiny, (str(path), 0.8, 0.5))
    picture = drawn(engine, asked)
    record = json.loads(picture.info[CHUNK])
    assert record["request"]["loras"] == [{"name": str(path), "weight": 0.8, "text_weight": 0.5}]
    assert record["model"]["hashes"][f"lora {path}"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert '"<lora:my style:0.5:0.8>"' in picture.info[PARAMETERS]
    found = describe(save(picture, tmp_path / "a.png"))
    assert found.request is not None
    assert found.request.loras == (Lora(str(path), 0.8, 0.5),)
    assert found.settings["loras"] == f"{path}:0.8:0.5"
    assert "loras" not in json.loads(drawn(engine, request(tiny)).info[CHUNK])["request"]


def test_a_replay_tells_whether_the_lora_is_the_same_other_or_gone(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    path = lora_file(tiny, tmp_path / "style.safetensors")
    picture = save(drawn(engine, request(tiny, Lora(str(path), 0.6))), tmp_path / "a.png")
    assert replay(picture, engine=engine).outcome == "identical"
    lora_file(tiny, path, seed=5)
    other = replay(picture, engine=engine)
    assert (other.outcome, other.picture) == ("missing weight", None)
    assert f"lora {path} was " in other.message
    anyway = replay(picture, engine=engine, verify=False)
    assert anyway.picture is not None
    assert anyway.outcome == "environment changed"
    path.unlink()
    gone = replay(picture, engine=engine)
    assert gone.outcome == "missing weight"
    assert f"the LoRA '{path}' is not there" in gone.message
    lora_file(tiny, path)
    assert replay(picture, engine=engine).outcome == "identical"


@pytest.mark.parametrize("kind", ["inpaint", "sdxl", "sd2"])
def test_every_family_takes_a_lora(engine: Engine, pair: Callable[[str], Pair], tmp_path: Path, kind: str) -> None:
    model = pair(kind).ours
    path = lora_file(model, tmp_path / "style.safetensors")
    assert drawn(engine, request(model, str(path))).tobytes() != drawn(engine, request(model)).tobytes()


def test_a_lora_that_is_not_there_is_told_before_the_model_is_loaded(tiny: Model) -> None:
    engine = Engine("cpu")
    with pytest.raises(ModelNotFoundError, match="the LoRA 'nowhere' is not there"):
        drawn(engine, request(tiny, "nowhere"))
    assert not engine.is_loaded(str(tiny.source))


def test_what_has_no_layer_is_refused_or_left_out_as_the_request_says(
    engine: Engine, tiny: Model, tmp_path: Path
) -> None:
    path = lora_file(tiny, tmp_path / "style.safetensors")
    plain = drawn(engine, request(tiny, str(path))).tobytes()
    tensors = load_file(path) | {f"lora_unet_mid_block_nowhere.{end}": torch.ones(2, 2) for end in ("diff", "alpha")}
    save_file(tensors, tmp_path / "more.safetensors")
    more = request(tiny, str(tmp_path / "more.safetensors"))
    with pytest.raises(WeightsError, match="2 of its tensors have no layer there"):
        drawn(engine, more)
    picture = drawn(engine, replace(more, allow_unmatched=True))
    assert picture.tobytes() == plain
    assert json.loads(picture.info[CHUNK])["request"]["allow_unmatched"] is True
    assert replay(save(picture, tmp_path / "a.png"), engine=engine).outcome == "identical"
    with pytest.raises(RequestError, match="allow_unmatched is 1"):
        request(tiny, allow_unmatched=1)
