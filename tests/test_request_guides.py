"""The parts of a request that guide: told in several ways, checked field by field, the same after JSON."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import RequestError
from sfumato.request import Request
from sfumato.request.guides import (
    Apg,
    DynamicThresholding,
    FreeU,
    PerturbedAttention,
    Refiner,
    SelfAttentionGuidance,
    SoftInpainting,
)

WRONG: list[tuple[str, Any, str]] = [
    *[("tiling", value, "tiling") for value in ("z", True, 1, "", "X")],
    *[("freeu", {name: value}, f"freeu.{name}") for name in ("b1", "b2", "s1", "s2") for value in (-0.1, 4.1, "1")],
    ("freeu", {"b1": None}, "freeu.b1"),
    ("freeu", {"b3": 1}, "freeu"),
    ("freeu", [1, 1, 1, 1], "freeu"),
    ("freeu", False, "freeu"),
    ("freeu", "on", "freeu.b1"),
    *[("perturbed_attention", value, "perturbed_attention.scale") for value in (-1, 101.0, math.nan)],
    *[
        ("perturbed_attention", {"layers": value}, "perturbed_attention.layers")
        for value in ([], "", [""], [1], 3, None)
    ],
    ("perturbed_attention", {"adaptive": -1}, "perturbed_attention.adaptive"),
    ("self_attention_guidance", {"blur": 0}, "self_attention_guidance.blur"),
    ("self_attention_guidance", 11, "self_attention_guidance.scale"),
    ("apg", {"eta": 11}, "apg.eta"),
    ("apg", {"threshold": -1}, "apg.threshold"),
    ("apg", {"momentum": 1.5}, "apg.momentum"),
    *[("differential", value, "differential") for value in (1, None, "yes")],
    ("soft_inpainting", {"schedule_bias": 9}, "soft_inpainting.schedule_bias"),
    ("soft_inpainting", {"transition_contrast_boost": 0.5}, "soft_inpainting.transition_contrast_boost"),
    ("soft_inpainting", {"difference_threshold": 8.5}, "soft_inpainting.difference_threshold"),
    ("soft_inpainting", {"difference_threshold": 1, "mask_influence": 2}, "soft_inpainting.mask_influence"),
    ("soft_inpainting", {"mask_influence": 0.5}, "soft_inpainting.difference_threshold"),
    ("soft_inpainting", {"difference_contrast": 4}, "soft_inpainting.difference_threshold"),
    *[("refiner", value, "refiner") for value in (True, {}, {"at": 0.5})],
    ("refiner", {"model": "a", "at": 1.5}, "refiner.at"),
    ("refiner", "", "refiner.model"),
    *[(name, value, name) for name in ("original_size", "negative_target_size") for value in ((64,), "64x64", 3)],
    *[(name, value, name) for name in ("crop", "negative_crop") for value in ((1,), "1,1", 3, (1, None))],
    *[(name, 10.5, name) for name in ("aesthetic_score", "negative_aesthetic_score")],
    ("dynamic_thresholding", {"percentile": 0.4}, "dynamic_thresholding.percentile"),
    ("dynamic_thresholding", {"start": "median"}, "dynamic_thresholding.start"),
    ("dynamic_thresholding", {"measure": "AD"}, "dynamic_thresholding.measure"),
    ("dynamic_thresholding", {"separate_channels": 2}, "dynamic_thresholding.separate_channels"),
]


@pytest.mark.parametrize(("field", "value", "named"), WRONG)
def test_a_wrong_part_is_refused_with_the_field_and_the_value(field: str, value: Any, named: str) -> None:
    with pytest.raises(RequestError) as caught:
        Request(prompt="x", **{field: value})
    assert caught.value.field == named
    shown = value if named == field else value.get(named.split(".")[1]) if isinstance(value, dict) else value
    assert named in str(caught.value)
    assert repr(shown) in str(caught.value)


def test_a_part_may_be_told_in_several_ways() -> None:
    for told in (True, {}, FreeU()):
        assert Request(freeu=told).freeu == FreeU(1.3, 1.4, 0.9, 0.2)  # type: ignore[arg-type]
    assert Request(perturbed_attention=2).perturbed_attention == PerturbedAttention(2.0, ("mid",))  # type: ignore[arg-type]
    told = {"layers": "up_blocks.0", "scale": 1}
    assert Request(perturbed_attention=told).perturbed_attention == PerturbedAttention(1.0, ("up_blocks.0",))  # type: ignore[arg-type]
    assert Request().freeu is None
    assert Request(freeu=None).to_dict() == Request().to_dict()


def test_two_ways_to_combine_are_refused() -> None:
    with pytest.raises(RequestError, match="apg is given with dynamic_thresholding") as caught:
        Request(apg=True, dynamic_thresholding=True)  # type: ignore[arg-type]
    assert caught.value.field == "apg"


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


freeus = st.builds(FreeU, *[floats(0, 4)] * 4)
perturbations = st.builds(PerturbedAttention, floats(0, 100), st.lists(st.sampled_from(["mid", "up"]), min_size=1))
guidances = st.fixed_dictionaries(
    {},
    optional={
        "tiling": st.sampled_from(["x", "y", "both"]),
        "freeu": freeus,
        "perturbed_attention": perturbations,
        "self_attention_guidance": st.builds(SelfAttentionGuidance, floats(0, 10), floats(0.1, 3)),
        "apg": st.builds(Apg, floats(-10, 10), floats(0, 1000), floats(-1, 1)),
    },
)


@given(guidances)
def test_a_request_with_parts_is_the_same_after_json(parts: dict[str, Any]) -> None:
    request = Request(prompt="x", **parts)
    assert Request.from_json(request.to_json()) == request
    assert hash(Request.from_dict(json.loads(json.dumps(request.to_dict())))) == hash(request)


@pytest.mark.parametrize(
    "parts",
    [
        {"dynamic_thresholding": DynamicThresholding(5, 0.9, False, "zero", "std", 0.5)},
        {"refiner": Refiner("a.safetensors", 0.7), "aesthetic_score": 6.5, "negative_aesthetic_score": 0},
        {"differential": True},
        {"soft_inpainting": SoftInpainting(0.0, 1.5, 8.0)},
        {"soft_inpainting": SoftInpainting(0.0, 1.5, 8.0, 0.25, 0.0, 3.0)},
        {"original_size": (1024, 768), "crop": (0, 16), "target_size": (512, 512)},
        {"negative_original_size": (64, 64), "negative_crop": (3, 0), "negative_target_size": [64, 32]},
    ],
)
def test_other_parts_are_the_same_after_json(parts: dict[str, Any]) -> None:
    request = Request(**parts)
    assert Request.from_json(request.to_json()) == request
    assert hash(Request.from_json(request.to_json())) == hash(request)


def test_a_name_alone_is_a_refiner() -> None:
    assert Request(refiner="a").refiner == Refiner("a", 0.8)  # type: ignore[arg-type]
    assert Request(refiner=Path("dir/a")).refiner == Refiner("dir/a", 0.8)  # type: ignore[arg-type]
