"""The options of guidance as they are typed: what they stand for, and what is told of a wrong one."""

from typing import Any

import pytest
import typer
import typer.main

from sfumato.cli.app import app, with_values_left_out
from sfumato.cli.guides import PART, PARTS, Grey, Guides, Sizes, parse_part
from sfumato.request import Request
from sfumato.request.guides import Apg, FreeU, PerturbedAttention, Refiner

READ: list[tuple[dict[str, str], str, Any]] = [
    ({"freeu": "on"}, "freeu", FreeU()),
    ({"freeu": "b1=1.1, s2=0.5"}, "freeu", FreeU(b1=1.1, s2=0.5)),
    ({"apg": "0.3"}, "apg", Apg(eta=0.3)),
    ({"apg": "eta=-1,momentum=-0.5"}, "apg", Apg(-1.0, 0.0, -0.5)),
    ({"perturbed_attention": "2"}, "perturbed_attention", PerturbedAttention(2.0)),
    (
        {"perturbed_attention": "layers=mid+up_blocks.0"},
        "perturbed_attention",
        PerturbedAttention(layers=("mid", "up_blocks.0")),
    ),
    ({"refiner": "a.safetensors"}, "refiner", Refiner("a.safetensors")),
    ({"refiner": "dir:x/a:0.7"}, "refiner", Refiner("dir:x/a", 0.7)),
    ({"guidance_interval": "0.1:0.8"}, "guidance_interval", (0.1, 0.8)),
    ({"tiling": "x"}, "tiling", "x"),
]


@pytest.mark.parametrize(("typed", "field", "value"), READ)
def test_an_option_stands_for_a_field(typed: dict[str, str], field: str, value: Any) -> None:
    assert getattr(Request(**Guides(**typed).fields()), field) == value


def test_without_options_nothing_is_given() -> None:
    assert set(Guides().fields().values()) | set(Sizes().fields().values()) == {None}
    assert Request(**Grey().fields()) == Request()
    assert Grey(differential=True).fields()["differential"] is True


def test_thresholding_is_read_with_its_words() -> None:
    found = Request(dynamic_thresholding=parse_part("x", "mimic_scale=5,separate_channels=false,start=zero"))
    assert found.dynamic_thresholding is not None
    assert found.dynamic_thresholding.to_dict() == {
        "mimic_scale": 5.0,
        "percentile": 1.0,
        "separate_channels": False,
        "start": "zero",
        "measure": "ad",
        "phi": 1.0,
    }


def test_sizes_are_wide_before_high_and_left_before_top() -> None:
    found = Sizes(original_size="640x480", crop="16,0", negative_target_size="64x32").fields()
    assert (found["original_size"], found["crop"], found["negative_target_size"]) == ((640, 480), (16, 0), (64, 32))


@pytest.mark.parametrize(
    "group",
    [
        Guides(freeu="b1=1,b1=2"),
        Guides(freeu="b1=1,2"),
        Guides(apg="=3"),
        Guides(guidance_interval="0.1"),
        Guides(refiner="a:0.1:0.2"),
        Sizes(crop="16"),
        Sizes(negative_crop="-1,0"),
        Sizes(target_size="64"),
    ],
)
def test_what_cannot_be_read_is_told(group: Guides | Sizes) -> None:
    with pytest.raises(typer.BadParameter, match="it must be"):
        group.fields()


def test_an_option_that_is_on_by_itself_takes_no_other_option_for_its_value() -> None:
    typed = ["txt2img", "a", "--pag", "--freeu", "b1=1.1", "--apg", "-0.5", "--sag", "-n", "b", "--freeu"]
    meant = ["txt2img", "a", "--pag=on", "--freeu", "b1=1.1", "--apg", "-0.5", "--sag=on", "-n", "b", "--freeu=on"]
    assert with_values_left_out(typed) == meant
    assert with_values_left_out(["--grid", "--grid", "2x3", "--steps", "3"]) == [
        "--grid=auto",
        "--grid",
        "2x3",
        "--steps",
        "3",
    ]


def test_every_option_that_stands_for_a_part_may_be_on_by_itself() -> None:
    options = typer.main.get_command(app).commands["inpaint"].params  # type: ignore[attr-defined]  # it is a group
    assert {name for option in options if option.metavar == PART for name in option.opts} == set(PARTS)
