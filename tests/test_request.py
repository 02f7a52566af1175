"""Requests: every wrong value is refused by name, and a request survives JSON."""

import json
import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import PromptError, RequestError
from sfumato.request import SEED_LIMIT, Lora, Request

OUT_OF_RANGE = [
    *[("seed", value) for value in (-1, SEED_LIMIT, 1.0, "1", True)],
    *[("steps", value) for value in (0, -1, 1001, 10**9, 20.0, "20", True)],
    *[
        (side, value)
        for side in ("width", "height")
        for value in (-8, 0, 1, 15, 8193, 2**31, math.nan, 512.0, "512", True)
    ],
    *[("count", value) for value in (0, -1, 10_001, None, 1.5)],
    *[("batch", value) for value in (0, 257, "4")],
    *[("clip_skip", value) for value in (-1, 65, 1.0)],
    *[("guidance", value) for value in (-0.1, 100.1, math.inf, math.nan, "7", True)],
    *[("guidance_rescale", value) for value in (-0.1, 1.1)],
    *[("eta", value) for value in (-0.1, 1.1)],
    *[("strength", value) for value in (-1e-9, 1 + 1e-9, math.nan)],
    *[("mask_blur", value) for value in (-1, 257)],
    *[("guidance_interval", value) for value in (0.5, (0.1,), (0.5, 0.2), (0, 1.1), ("a", "b"), (0, 0.5, 1))],
    *[("noise", value) for value in ("gpu", None)],
    *[("strength_rule", value) for value in ("half", 1)],
    *[("dialect", value) for value in ("midjourney", "", 1, ["a1111"])],
    *[("strict", value) for value in (1, None)],
    *[("sampler", value) for value in ("", 3)],
    *[("model", value) for value in ("", "a\0b")],
    *[("loras", value) for value in ("a.safetensors", 3)],
]


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE)
def test_a_wrong_value_is_refused_with_the_name_and_the_value(field: str, value: object) -> None:
    with pytest.raises(RequestError) as caught:
        Request(prompt="x", **{field: value})
    assert caught.value.field == field
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("field", ["steps", "width", "guidance", "strength"])
def test_the_message_names_the_range(field: str) -> None:
    low, high = {
        "steps": ("1", "1000"),
        "width": ("16", "8192"),
        "guidance": ("0", "100"),
        "strength": ("0", "1"),
    }[field]
    with pytest.raises(RequestError, match=f"from {low} to {high}"):
        Request(prompt="x", image="a.png", **{field: -1})


@pytest.mark.parametrize("prompt", ["a\0b", "\ud800", 3, None, [], ["a", 3], b"a"])
def test_a_prompt_that_is_no_text_is_a_prompt_error(prompt: object) -> None:
    with pytest.raises(PromptError):
        Request(prompt=prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"strict": True, "batch": 2},
        {"prompt": ["a"] * 101, "count": 100},
        {"seed": SEED_LIMIT - 2, "count": 3},
    ],
)
def test_fields_that_do_not_go_together_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        Request(**{"prompt": "x", **values})  # type: ignore[arg-type]


def test_an_unknown_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RequestError, match="no field 'stepps'; did you mean 'steps'") as caught:
        Request.from_dict({"prompt": "x", "stepps": 20})
    assert caught.value.field == "stepps"
    with pytest.raises(RequestError, match="the fields are prompt, "):
        Request.from_dict({"zzzzqqqq": 20})


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"steps": NaN}', '{"count": null}', "[" * 100_000])
def test_a_text_that_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        Request.from_json(text)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
units = st.floats(0, 1)
weights = st.floats(-10, 10)
loras = st.lists(st.builds(Lora, st.sampled_from(["a", "b.safetensors", "org/name"]), weights, weights), max_size=3)
requests = st.builds(
    Request,
    prompt=texts | st.lists(texts, min_size=1, max_size=3),
    negative_prompt=texts,
    model=st.none() | st.just("org/name"),
    seed=st.none() | st.integers(0, SEED_LIMIT - 100),
    steps=st.none() | st.integers(1, 1000),
    guidance=st.none() | st.floats(0, 100) | st.integers(0, 100),
    guidance_interval=st.none() | st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    width=st.none() | st.integers(16, 8192),
    count=st.integers(1, 9),
    image=st.just(Path("a.png")),
    strength=st.none() | units,
    strength_rule=st.sampled_from([None, "share", "a1111", "whole"]),
    mask=st.just("m.png"),
    mask_blur=st.none() | st.floats(0, 256),
    noise=st.sampled_from(["keyed", "sequential", "philox"]),
    dialect=st.sampled_from(["a1111", "comfy", "compel", "plain"]),
    step_seed_delta=st.none() | st.just(31337),
    loras=loras,
)


@given(requests)
def test_a_request_is_the_same_after_json(request: Request) -> None:
    assert Request.from_json(request.to_json()) == request
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


@given(requests)
def test_a_request_can_be_hashed_and_its_defaults_are_left_out_of_json(request: Request) -> None:
    assert hash(request) == hash(Request.from_json(request.to_json()))
    assert None not in request.to_dict().values()
    assert set(request.to_dict()) <= {field.name for field in fields(Request)}


def test_a_lora_may_be_told_in_several_ways() -> None:
    told = ["a", ("a", 0.5), ["a", 0.5, 0], {"name": "a", "text_weight": 0.2}, Lora("a", 2), Path("dir/a")]
    found = Request(loras=told).loras  # type: ignore[arg-type]
    assert [(each.name, each.weight, each.text_weight) for each in found] == [
        ("a", 1.0, 1.0),
        ("a", 0.5, 0.5),
        ("a", 0.5, 0.0),
        ("a", 1.0, 0.2),
        ("a", 2.0, 2.0),
        ("dir/a", 1.0, 1.0),
    ]
    assert Request(loras=[]).loras == ()


@pytest.mark.parametrize(
    "value",
    [
        ("a", 10.5),
        ("a", math.nan),
        ("a", 1, "x"),
        ("a", 1, 1, 1),
        ("a", None),
        ("",),
        (None,),
        {"weight": 1},
        {"x": 1},
        3,
    ],
)
def test_a_wrong_lora_is_refused_by_name(value: object) -> None:
    with pytest.raises(RequestError, match="loras") as caught:
        Request(loras=[value])  # type: ignore[list-item]
    assert caught.value.field == "loras"


def test_several_prompts_count_as_that_many_pictures_each() -> None:
    request = Request(prompt=["a", "b"], count=3)
    assert request.prompts == ("a", "b")
    assert request.total == 6
    assert Request(prompt="a").prompts == ("a",)


def test_requests_and_metadata_need_no_torch() -> None:
    code = "import sys, sfumato.request, sfumato.metadata; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
