"""Models of few steps: what their names and schedulers say becomes defaults, and is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from weights_files import single_file_shapes, write_sparse

from sfumato.weights.describe import describe
from sfumato.weights.distilled import distilled_by_name
from sfumato.weights.families import FAMILIES, blueprint
from sfumato.weights.load import open_model

Pipelines = Callable[[str], tuple[Any, Path]]
SHAPES = single_file_shapes(blueprint(FAMILIES["sdxl"]))
NAMES = {  # name -> scheduler, spacing, steps, default size; as their publishers say
    "sd_xl_turbo_1.0_fp16": ("EulerAncestralDiscreteScheduler", "trailing", 4, 512),
    "DreamShaperXL_Turbo_v2_1": ("EulerAncestralDiscreteScheduler", "trailing", 4, 1024),
    "sdxl_lightning_8step": ("EulerDiscreteScheduler", "trailing", 8, 1024),
    "juggernautXL_v9Rdphoto2Lightning": ("EulerDiscreteScheduler", "trailing", 4, 1024),
    "Hyper-SDXL-4steps": ("DDIMScheduler", "trailing", 4, 1024),
    "Hyper-SDXL-1step-Unet": ("LCMScheduler", "leading", 1, 1024),
    "some-lcm": ("LCMScheduler", "leading", 4, 1024),
    "turbocharged": None,
    "hyperrealism_v3": None,
    "sd_xl_base_1.0": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_a_single_file_its_defaults(tmp_path: Path, name: str) -> None:
    opened = open_model(write_sparse(tmp_path / f"{name}.safetensors", SHAPES))
    expected = NAMES[name]
    if expected is None:
        assert (opened.family.steps, opened.family.guidance, opened.family.size) == (30, 5.0, 1024)
        assert opened.scheduler["_class_name"] == "EulerDiscreteScheduler"
        return
    scheduler, spacing, steps, size = expected
    assert (opened.family.steps, opened.family.guidance, opened.family.size) == (steps, 1.0, size)
    assert (opened.scheduler["_class_name"], opened.scheduler["timestep_spacing"]) == (scheduler, spacing)
    assert f"{steps} steps, guidance 1" in opened.reason and repr(name) in opened.reason


def test_a_title_in_the_metadata_says_it_too(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "a.safetensors", SHAPES, metadata={"modelspec.title": "Foo Lightning 2step"})
    assert open_model(path).family.steps == 2


def test_the_scheduler_of_a_folder_says_it_and_its_own_defaults_come_first(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    import shutil

    folder = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    scheduler = folder / "scheduler/scheduler_config.json"
    stated = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps({**stated, "_class_name": "LCMScheduler"}))
    found = describe(folder)
    assert (found.default_steps, found.default_guidance) == (4, 1.0)
    assert "its scheduler is an LCMScheduler: 4 steps" in found.reason
    (folder / "sfumato.json").write_text(json.dumps({"steps": 12, "guidance": 2.0}))
    found = describe(folder)
    assert (found.default_steps, found.default_guidance) == (12, 2.0)


def test_the_name_of_a_cached_repository_counts(tmp_path: Path) -> None:
    folder = tmp_path / "models--stabilityai--sdxl-turbo" / "snapshots" / "71153311d3dbb46851df1931d3ca6e939de83304"
    folder.mkdir(parents=True)
    path = write_sparse(folder / "model.safetensors", SHAPES)
    opened = open_model(path)
    assert (opened.family.steps, opened.family.size) == (4, 512)


def test_what_says_the_prediction_is_told(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "a.safetensors", {**SHAPES, "v_pred": (0,)})
    assert describe(path).prediction_reason == "it has the marker 'v_pred'"
    second = single_file_shapes(blueprint(FAMILIES["sd2"]))
    path = write_sparse(tmp_path / "b.safetensors", second)
    assert describe(path).prediction is None
    assert "nor a configuration beside it" in describe(path).prediction_reason
    (tmp_path / "b.yaml").write_text("model:\n  params:\n    parameterization: v\n")
    assert (describe(path).prediction, describe(path).prediction_reason) == ("v_prediction", "b.yaml")


def test_steps_are_read_with_any_mark_between() -> None:
    for name, steps in (("x_lightning_2step", 2), ("x-lightning-8-steps", 8), ("lightning 16 steps", 16)):
        found = distilled_by_name([name])
        assert found is not None and found.steps == steps
