"""Prompts that change, that are several, and that name LoRAs, in whole pictures of tiny models."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_lora_requests import lora_file
from tiny_models import SIZE, Pair, scene

from sfumato import operations as op
from sfumato.engine import Engine
from sfumato.errors import ModelNotFoundError, RequestError
from sfumato.events import Finished, Progress
from sfumato.generation import generate, stream
from sfumato.metadata import CHUNK, save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Lora, Request


def drawn(model: Model, prompt: str | tuple[str, ...], **changes: object) -> list[Image.Image]:
    fields: dict[str, object] = {"seed": 3, "steps": 4, "width": SIZE, "height": SIZE}
    return generate(model, Request(prompt=prompt, **{**fields, **changes}), metadata=False)  # type: ignore[arg-type]


def estimates(model: Model, prompt: str, sampler: str, **changes: object) -> list[torch.Tensor]:
    fields: dict[str, object] = {"seed": 3, "steps": 6, "width": SIZE, "height": SIZE, "sampler": sampler}
    request = Request(prompt=prompt, **{**fields, **changes})  # type: ignore[arg-type]
    return [event.denoised for event in stream(model, request, metadata=False) if isinstance(event, Progress)]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_2s_a", "pndm", "unipc"])
def test_an_edited_prompt_is_the_first_until_its_step_and_another_then(tiny: Model, sampler: str) -> None:
    edited = estimates(tiny, "a [cat:dog:3]", sampler)
    first, second = estimates(tiny, "a cat", sampler), estimates(tiny, "a dog", sampler)
    assert torch.equal(edited[0], first[0])
    assert torch.equal(edited[1], first[1])
    assert not torch.equal(edited[3], first[3])
    assert not torch.equal(edited[5], second[5])


def test_an_edit_at_an_end_is_no_edit(tiny: Model) -> None:
    cat, dog = drawn(tiny, "a cat")[0].tobytes(), drawn(tiny, "a dog")[0].tobytes()
    assert drawn(tiny, "a [cat:dog:0]")[0].tobytes() == dog
    assert drawn(tiny, "a [cat:dog:1.0]")[0].tobytes() == cat
    assert drawn(tiny, "[a cat|a cat]")[0].tobytes() == cat
    assert drawn(tiny, "a [cat:dog:0.5]")[0].tobytes() not in (cat, dog)
    assert drawn(tiny, "a [cat|dog]")[0].tobytes() not in (cat, dog)
    assert drawn(tiny, "x", negative_prompt="a [cat:dog:0]")[0].tobytes() == (
        drawn(tiny, "x", negative_prompt="a dog")[0].tobytes()
    )
    assert drawn(tiny, "a [cat:dog:0.5]", dialect="comfy")[0].tobytes() not in (cat, dog)  # text there


def test_the_steps_of_img2img_are_those_that_are_run(tiny: Model) -> None:
    def changed(prompt: str) -> bytes:
        request = Request(prompt=prompt, seed=3, steps=8, strength=0.5, width=SIZE, height=SIZE)
        return generate(tiny, request, image=scene(), metadata=False)[0].tobytes()

    assert changed("a [cat:dog:4]") == changed("a cat")  # four of the eight are run
    assert changed("a [cat:dog:3]") != changed("a cat")


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_and_adds_what_each_prompt_adds(tiny: Model, guidance: float) -> None:
    canvas, sigma = op.Canvas(SIZE, SIZE, 8), 3.0
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * sigma
    prompts, weights = ["a cat", "a dog, red", "grass"], (1.0, 0.6, -0.3)
    positive, negative = op.encode_text(tiny, "a cat AND a dog, red :0.6 AND grass:-0.3", "ugly", canvas)
    found = op.guided(tiny, positive, negative, op.Guidance(scale=guidance), tiny.schedule.timestep)(x, sigma)
    each = [op.conditioned(tiny, op.encode_text(tiny, p, "ugly", canvas)[0], tiny.schedule.timestep) for p in prompts]
    base = op.conditioned(tiny, negative, tiny.schedule.timestep)(x, sigma)
    sums = sum(weight * (one(x, sigma) - base) for weight, one in zip(weights, each, strict=True))
    torch.testing.assert_close(found, base + guidance * sums, rtol=1e-4, atol=1e-4)


def difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "inpaint"])
def test_a_part_of_weight_0_changes_nothing_in_any_family(pair: Callable[[str], Pair], kind: str) -> None:
    model = pair(kind).ours
    (alone,), (composed,) = drawn(model, "a cat"), drawn(model, "a cat AND a [red|blue] dog :0")
    assert difference(alone, composed) <= 1  # one call more in the batch rounds otherwise
    (other,) = drawn(model, "a cat AND a dog")
    assert difference(alone, other) > 1


def test_pictures_of_different_kinds_are_made_in_their_order(tiny: Model) -> None:
    prompts = ("a cat", "a cat AND a dog", "a [cat:dog:2]", "a bird AND a dog", "a bird")
    together = drawn(tiny, prompts, batch=4)
    alone = [drawn(tiny, prompt, seed=3 + number)[0] for number, prompt in enumerate(prompts)]
    assert all(difference(one, other) <= 2 for one, other in zip(together, alone, strict=True))
    strict = drawn(tiny, prompts, strict=True)
    assert [picture.tobytes() for picture in strict] == [picture.tobytes() for picture in alone]


@pytest.fixture
def engine() -> Engine:
    return Engine("cpu")


def pictures(engine: Engine, request: Request) -> list[Image.Image]:
    return [event.picture for event in engine.run(request) if isinstance(event, Finished)]


def test_a_lora_in_the_prompt_is_that_of_the_request(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    path = str(lora_file(tiny, tmp_path / "style.safetensors"))
    base = Request(prompt="a cat", seed=3, steps=2, width=SIZE, height=SIZE, model=str(tiny.source))
    (asked,) = pictures(engine, replace(base, loras=(Lora(path, 0.8, 0.5),)))
    (named,) = pictures(engine, replace(base, prompt=f"a cat<lora:{path}:0.5:0.8>"))
    assert named.tobytes() == asked.tobytes()
    record = json.loads(named.info[CHUNK])
    assert record["request"]["prompt"] == f"a cat<lora:{path}:0.5:0.8>"
    assert "loras" not in record["request"]
    assert f"lora {path}" in record["model"]["hashes"]
    assert replay(save(named, tmp_path / "a.png"), engine=engine).outcome == "identical"
    other = str(lora_file(tiny, tmp_path / "other.safetensors", 1))
    (both,) = pictures(engine, replace(base, prompt=f"a cat<lora:{path}:0.8>", loras=(Lora(other, 0.3),)))
    (listed,) = pictures(engine, replace(base, loras=(Lora(other, 0.3), Lora(path, 0.8))))
    assert both.tobytes() == listed.tobytes()
    assert json.loads(both.info[CHUNK])["request"]["loras"] == [Lora(other, 0.3).to_dict()]
    assert replay(save(both, tmp_path / "b.png"), engine=engine).outcome == "identical"


def test_prompts_with_different_loras_are_drawn_one_after_another(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    paths = [str(lora_file(tiny, tmp_path / f"{number}.safetensors", number)) for number in (1, 2)]
    prompts = ("a cat", f"a cat<lora:{paths[0]}:1>", f"a cat<lora:{paths[1]}:1>", "a cat")
    base = Request(prompt=prompts, seed=3, steps=2, width=SIZE, height=SIZE, model=str(tiny.source), batch=4)
    found = pictures(engine, base)
    alone = [pictures(engine, replace(base, prompt=text, seed=3 + number))[0] for number, text in enumerate(prompts)]
    assert [picture.tobytes() for picture in found] == [picture.tobytes() for picture in alone]
    assert replay(save(found[1], tmp_path / "a.png"), engine=engine).outcome == "identical"
    seedless = pictures(engine, replace(base, seed=None))
    seeds = [json.loads(picture.info[CHUNK])["seed"] for picture in seedless]
    assert seeds == list(range(seeds[0], seeds[0] + 4))
    with pytest.raises(RequestError, match="different LoRAs"):
        generate(tiny, base)


def test_a_lora_that_is_not_there_is_told_and_only_where_it_is_one(engine: Engine, tiny: Model) -> None:
    base = Request(prompt="a <lora:nowhere:1>", seed=3, steps=1, width=SIZE, height=SIZE, model=str(tiny.source))
    with pytest.raises(ModelNotFoundError, match="the LoRA 'nowhere' is not there"):
        pictures(engine, base)
    assert not engine.is_loaded(str(tiny.source))
    with pytest.raises(RequestError, match="loras is nowhere:1 but the model has none"):
        generate(tiny, base)
    for dialect in ("comfy", "compel", "plain"):
        assert pictures(engine, replace(base, dialect=dialect))  # type: ignore[arg-type]
    assert pictures(engine, replace(base, prompt="a cat", negative_prompt="<lora:nowhere:1>"))
