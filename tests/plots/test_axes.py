"""Axes of plots: how their values are written, and the requests of the cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import RequestError
from sfumato.plots.axes import cells, parse_axis
from sfumato.request import Lora, Request

BASE = Request(prompt="a red house", negative_prompt="a house on fire", seed=7)


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("steps=10,20,30", "steps", (10, 20, 30)),
        ("steps=1-5", "steps", (1, 2, 3, 4, 5)),  # the examples of A1111's help on ranges
        ("steps=1-5 (+2)", "steps", (1, 3, 5)),
        ("steps=10-5 (-3)", "steps", (10, 7)),
        ("steps=1-10 [5]", "steps", (1, 3, 5, 7, 10)),
        ("seed=1-9 (+2), 100", "seed", (1, 3, 5, 7, 9, 100)),
        ("guidance=1-2 (+0.25)", "guidance", (1, 1.25, 1.5, 1.75, 2)),
        ("CFG Scale=0-1 [6]", "guidance", (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ("Denoising=0.3-0.9 (+0.3)", "strength", (0.3, 0.6, 0.9)),
        ("Clip skip=0,1", "clip_skip", (0, 1)),
        ("sampler=euler,dpmpp_2m", "sampler", ("euler", "dpmpp_2m")),
        ("size=64x96, 96x64", "size", ((64, 96), (96, 64))),
        ('prompt="red, large",blue', "prompt", ("red, large", "blue")),
        ("masked_only=true,false", "masked_only", (True, False)),
        ("vae=none,other", "vae", (None, "other")),
        ("hires.strength=0.3-0.5 [3]", "hires.strength", (0.3, 0.4, 0.5)),
        ("hires.steps=5,10", "hires.steps", (5, 10)),
        ("Hires. steps=5,10", "hires.steps", (5, 10)),
        ("Var. seed=1-3", "variation.seed", (1, 2, 3)),
        ("Var. strength=0-1 [3]", "variation.strength", (0.0, 0.5, 1.0)),
        ("Image CFG Scale=1,1.5", "image_guidance", (1.0, 1.5)),
        ("Styles=ink,photo", "style", ("ink", "photo")),
        ("Refiner checkpoint=a.safetensors,none", "refiner.model", ("a.safetensors", None)),
        ("Refiner switch at=0.6-0.8 [3]", "refiner.at", (0.6, 0.7, 0.8)),
    ],
)
def test_an_axis_is_read_as_a1111_writes_it(text: str, field: str, values: tuple[object, ...]) -> None:
    axis = parse_axis(text)
    assert axis.field == field
    assert axis.values == pytest.approx(values) if isinstance(values[0], float) else axis.values == values
    assert len(axis.labels) == len(values)


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 50))
def test_a_range_of_whole_numbers_has_both_ends(first: int, last: int, step: int) -> None:
    if first <= last:
        assert parse_axis(f"seed={first}-{last} (+{step})").values == tuple(range(first, last + 1, step))


def test_the_cells_are_all_combinations_with_one_seed() -> None:
    found = cells(BASE, parse_axis("steps=10,20"), parse_axis("guidance=2,5,7"), parse_axis("sampler=euler,ddim"))
    assert len({(cell.x, cell.y, cell.z) for cell in found}) == len(found) == 12
    for cell in found:
        assert cell.request.seed == 7
        assert cell.request.steps == (10, 20)[cell.x]
        assert cell.request.guidance == (2, 5, 7)[cell.y]
        assert cell.request.sampler == ("euler", "ddim")[cell.z]


def test_words_are_searched_and_replaced_in_both_prompts() -> None:
    found = cells(BASE, parse_axis("prompt=house,tree"), parse_axis("prompt=red,blue"))
    said = {(cell.x, cell.y): (cell.request.prompt, cell.request.negative_prompt) for cell in found}
    assert said[1, 1] == ("a blue tree", "a tree on fire")
    assert said[0, 0] == (BASE.prompt, BASE.negative_prompt)
    third = cells(BASE, parse_axis("prompt=house,tree"), parse_axis("prompt=red,blue"), parse_axis("steps=5,6"))
    assert len({(cell.request.prompt, cell.request.steps) for cell in third}) == 8
    with pytest.raises(RequestError, match="two axes have the field steps"):
        cells(BASE, parse_axis("prompt=house,tree"), parse_axis("steps=5"), parse_axis("steps=6"))
    with pytest.raises(RequestError, match="'cat'"):
        cells(BASE, parse_axis("prompt=cat,dog"))


def test_models_and_loras_are_drawn_one_after_the_other() -> None:
    found = cells(BASE, parse_axis("model=a,b"), parse_axis("lora=x.safetensors:0.5,none"))
    assert [(cell.x, cell.y) for cell in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]  # the model stays loaded
    assert found[0].request.loras == (Lora("x.safetensors", 0.5),)
    assert found[1].request.loras == ()
    many = cells(BASE, parse_axis("model=a,b"), parse_axis("steps=1,2,3"))
    assert [cell.request.model for cell in many] == ["a"] * 3 + ["b"] * 3


def test_fields_of_parts_are_put_beside_the_others() -> None:
    base = Request(prompt="x", seed=1, hires={"scale": 1.5, "strength": 0.6})  # type: ignore[arg-type]
    found = cells(base, parse_axis("hires.strength=0.2,0.4"), parse_axis("variation.strength=0.1,0.2"))
    assert {cell.request.hires.strength for cell in found if cell.request.hires} == {0.2, 0.4}
    assert {cell.request.hires.scale for cell in found if cell.request.hires} == {1.5}
    assert {cell.request.variation.strength for cell in found if cell.request.variation} == {0.1, 0.2}
    assert {cells(BASE, parse_axis("hires.scale=2"))[0].request.hires} == {
        Request(hires={"scale": 2}).hires  # type: ignore[arg-type]
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("stepps=1,2", "stepps"),
        ("count=1,2", "count"),
        ("steps", "no values"),
        ("steps=", "no values"),
        ("steps=1,,2", "no values"),
        ("size=64", "width x height"),
        ("seed=5-1", r"no values.*\(-1\)"),
        ("guidance=8-2", r"no values.*\(-1\)"),
        ("guidance=8-7.5", "no values"),
        ("steps=1-9 [0]", "no values"),
        ("seed=1-1000000000", "more than 2500"),
        ("seed=1-99999999999999999999", "more than 2500"),
        ("guidance=1-2 (+0.00000000000000000001)", "more than 2500"),
        ("guidance=1-2 [999999999]", "more than 2500"),
    ],
)
def test_a_wrong_axis_is_refused_by_name(text: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        parse_axis(text)


def test_a_value_out_of_its_range_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(RequestError, match="steps is 0"):
        cells(BASE, parse_axis("steps=5,0"))
    with pytest.raises(RequestError, match="two axes"):
        cells(BASE, parse_axis("steps=5"), parse_axis("steps=6"))
    with pytest.raises(RequestError, match="at most"):
        cells(BASE, parse_axis("seed=1-100"), parse_axis("steps=1-100"))
    with pytest.raises(RequestError, match="one picture"):
        cells(Request(prompt="x", count=2), parse_axis("steps=5"))


def test_styles_of_an_axis_are_those_of_the_request() -> None:
    found = cells(BASE, parse_axis("Styles=ink,ink;photo,none"))
    assert [cell.request.styles for cell in found] == [("ink",), ("ink", "photo"), ()]


def test_a_refiner_of_an_axis_may_be_none() -> None:
    found = cells(BASE, parse_axis("Refiner checkpoint=a.safetensors,none"))
    assert sorted(cell.request.refiner is None for cell in found) == [False, True]


def test_a_seed_of_minus_one_is_drawn_as_in_a1111() -> None:
    first, second, third = parse_axis("Seed=-1,-1,5").values
    assert first != second
    assert min(first, second) >= 0
    assert third == 5
