"""The ControlNet extension's units as controls; fields and words are those of its external_code API."""

from typing import Any

import pytest

from sfumato.request import Request
from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_controlnet import (
    MODULES,
    control_fields,
    control_types,
    module_list,
    unit_picture,
    units_of,
)
from sfumato.server.dialects.a1111_lowering import picture_fields
from sfumato.server.problems import Problem

CATALOGUE = Catalogue(controls={"control_v11p_sd15_canny": "control_v11p_sd15_canny"})
UNIT = {"model": "control_v11p_sd15_canny [d14c016b]", "module": "canny"}
OWN = {"control 0": "sha256:" + "c" * 64}


def control(unit: dict[str, Any], pictures: dict[str, str] = OWN) -> Any:
    (made,) = Request.from_dict(control_fields([{**UNIT, **unit}], pictures, CATALOGUE)).controls
    return made


def test_a_unit_becomes_a_control() -> None:
    made = control({"weight": 0.8, "guidance_start": 0.1, "guidance_end": 0.9, "threshold_a": 50, "threshold_b": 150})
    assert (made.model, made.image, made.preprocessor) == ("control_v11p_sd15_canny", OWN["control 0"], "canny")
    assert (made.weight, made.start, made.end) == (0.8, 0.1, 0.9)
    assert dict(made.options) == {"low": 50, "high": 150}
    assert (made.mode, made.resize) == ("balanced", "crop")


def test_what_webuiapi_sends_is_read() -> None:
    webuiapi = pytest.importorskip("webuiapi", reason="webuiapi, A1111's client from PyPI, is not installed")
    unit = webuiapi.ControlNetUnit(model=UNIT["model"], module="none", control_mode=2).to_dict()
    assert unit_picture(unit) is None
    made = control({"threshold_a": None, **unit, "threshold_b": -1})
    assert (made.mode, made.resize, made.preprocessor) == ("control", "fill", "none")


@pytest.mark.parametrize(
    ("sent", "mode"),
    [(0, "balanced"), (1, "prompt"), (2, "control"), ("My prompt is more important", "prompt"), (None, "balanced")],
)
def test_modes_are_numbers_or_words(sent: object, mode: str) -> None:
    assert control({"control_mode": sent}).mode == mode


@pytest.mark.parametrize(
    ("sent", "resize"),
    [(0, "stretch"), (1, "crop"), (2, "fill"), ("Just Resize", "stretch"), ("Resize and Fill", "fill")],
)
def test_ways_to_resize_are_numbers_or_words(sent: object, resize: str) -> None:
    assert control({"resize_mode": sent}).resize == resize


@pytest.mark.parametrize(
    ("sent", "task"), [("Hard Edge", "line"), ("OpenPose", "openpose"), ("Unknown", None), (None, None)]
)
def test_what_a_union_sees_is_told_in_the_extensions_words(sent: object, task: str | None) -> None:
    assert control({"union_control_type": sent}).task == task


@pytest.mark.parametrize("module", MODULES)
def test_every_listed_module_is_a_preprocessor(module: str) -> None:
    control({"module": module, "threshold_a": 2, "threshold_b": 3})


def test_pictures_come_in_three_forms_or_not_at_all() -> None:
    for unit in ({"image": "QQ=="}, {"input_image": "QQ=="}, {"image": {"image": "QQ==", "mask": None}}):
        assert unit_picture(unit) == "QQ=="
    assert unit_picture({"image": ""}) is None
    body = {"alwayson_scripts": {"controlnet": {"args": [{"enabled": False}, {"image": "QQ==", **UNIT}, None]}}}
    assert picture_fields(body, img2img=False) == {"control 0": "QQ=="}
    assert control({}, {}).image is None  # the start picture


@pytest.mark.parametrize(
    ("unit", "field"),
    [
        ({"module": "openpose_full"}, "module"),
        ({"model": "None"}, "model"),
        ({"model": "nonsense"}, "model"),
        ({"control_mode": "nonsense"}, "control_mode"),
        ({"union_control_type": "nonsense"}, "union_control_type"),
        ({"resize_mode": 7}, "resize_mode"),
        ({"weight": "much"}, "weight"),
    ],
)
def test_a_unit_that_cannot_be_is_refused_by_name(unit: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as caught:
        control(unit)
    assert (caught.value.status, caught.value.field) == (422, field)


def test_a_unit_of_an_ip_adapter_is_an_image_prompt() -> None:
    units = [UNIT, {"module": "ip-adapter_clip_sd15", "model": UNIT["model"], "weight": 0.6, "guidance_end": 0.5}]
    values = control_fields(units, {"control 1": OWN["control 0"]}, CATALOGUE)
    (prompt,) = Request.from_dict(values).image_prompts
    assert (prompt.model, prompt.images, prompt.weight, prompt.end) == (
        "control_v11p_sd15_canny", (OWN["control 0"],), 0.6, 0.5,
    )  # fmt: skip
    assert len(values["controls"]) == 1
    with pytest.raises(Problem, match="image is missing"):
        control_fields(units[1:], {}, CATALOGUE)


def test_units_that_are_none_are_refused_and_disabled_ones_left() -> None:
    assert units_of([{"enabled": False, "model": "nonsense"}, None, False]) == []
    for args in ([True], ["canny"]):
        with pytest.raises(Problem, match="has ControlNet unit 0"):
            units_of(args)
    with pytest.raises(Problem, match="a ControlNet unit with a mask"):
        unit_picture({"image": {"image": "QQ==", "mask": "QQ=="}})


def test_the_lists_hang_together() -> None:
    modules = module_list()
    assert set(modules["module_detail"]) == set(modules["module_list"])
    types = control_types(CATALOGUE)["control_types"]
    assert types["All"]["module_list"][0] == "none" and set(types["All"]["module_list"]) == set(modules["module_list"])
    canny = {"module_list": ["none", "canny"], "model_list": ["None", "control_v11p_sd15_canny"]}
    assert types["Canny"] == canny | {"default_option": "canny", "default_model": "control_v11p_sd15_canny"}
    assert types["OpenPose"]["default_model"] == "None"
