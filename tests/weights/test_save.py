"""Folders that sfumato writes, read by diffusers; and files that appear whole or not at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_load_folder import same_weights
from weights_pipelines import KINDS

from sfumato.errors import OutputError
from sfumato.weights.load import load
from sfumato.weights.save import save_file, save_folder
from sfumato.weights.writing import folder_written_aside, written_aside

Pipelines = Callable[[str], tuple[Any, Path]]
COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_ours_is_the_same_pipeline_in_diffusers(pipelines: Pipelines, tmp_path: Path, kind: str) -> None:
    pipeline, folder = pipelines(kind)
    saved = save_folder(load(folder), tmp_path / "ours")
    read = getattr(diffusers, type(pipeline).__name__).from_pretrained(saved, local_files_only=True)
    for name in COMPONENTS:
        expected = getattr(pipeline, name, None)
        if expected is None:
            assert getattr(read, name, None) is None
            continue
        states = expected.state_dict(), getattr(read, name).state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    prompt = "a photograph of an astronaut, riding a horse"
    for name in ("tokenizer", "tokenizer_2"):
        if getattr(pipeline, name, None) is not None:
            ours, theirs = getattr(read, name), getattr(pipeline, name)
            padded = {"padding": "max_length", "max_length": 77}
            assert ours(prompt, **padded).input_ids == theirs(prompt, **padded).input_ids
    assert type(read.scheduler) is type(pipeline.scheduler)
    for key, value in pipeline.scheduler.config.items():
        if not key.startswith("_"):
            assert read.scheduler.config[key] == value
    for key in ("force_zeros_for_empty_prompt", "requires_aesthetics_score"):
        assert read.config.get(key) == pipeline.config.get(key)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_ours_is_read_back_exactly(pipelines: Pipelines, tmp_path: Path, kind: str) -> None:
    model = load(pipelines(kind)[1])
    found = load(save_folder(model, tmp_path / "ours"))
    assert same_weights(found, model)
    for name in ("family", "schedule", "sampling", "prediction"):
        assert getattr(found, name) == getattr(model, name)
    assert found.text.rules == model.text.rules


def test_a_variant_in_half_precision_is_written_under_its_name(pipelines: Pipelines, tmp_path: Path) -> None:
    model = load(pipelines("sd1")[1])
    saved = save_folder(model, tmp_path / "ours", dtype=torch.float16, variant="fp16")
    file = saved / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    found = load(saved, variant="fp16")
    assert torch.equal(found.unet.conv_in.weight, model.unet.conv_in.weight.half().float())


def test_a_model_in_another_memory_order_is_written_in_the_usual_one(pipelines: Pipelines, tmp_path: Path) -> None:
    pipeline, folder = pipelines("sd1")
    saved = save_folder(load(folder), tmp_path / "ours")
    found = load_file(saved / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in pipeline.unet.state_dict().items())


def test_weights_that_do_not_fit_a_precision_are_not_written(pipelines: Pipelines, tmp_path: Path) -> None:
    model = load(pipelines("sd1")[1])
    with torch.no_grad():
        model.unet.conv_in.weight.fill_(1e6)  # float16 ends at 65,504
    for save, place in ((save_folder, tmp_path / "folder"), (save_file, tmp_path / "one.safetensors")):
        with pytest.raises(OutputError, match=r"not finite in torch\.float16"):
            save(model, place, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_replaced_only_when_told_so(pipelines: Pipelines, tmp_path: Path) -> None:
    model = load(pipelines("sd1")[1])
    place = tmp_path / "model"
    place.mkdir()
    (place / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="exists"):
        save_folder(model, place)
    assert (place / "mine.txt").read_text() == "keep me"
    save_folder(model, place, overwrite=True)
    assert not (place / "mine.txt").exists()
    assert same_weights(load(place), model)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_loaded_model_survives_being_written_over_its_own_files(pipelines: Pipelines, tmp_path: Path) -> None:
    place = save_folder(load(pipelines("sd1")[1]), tmp_path / "model")
    model = load(place)
    save_folder(model, place, overwrite=True)
    assert same_weights(model, load(pipelines("sd1")[1]))
    assert same_weights(load(place), model)


def test_what_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("before")
    for make in (written_aside, folder_written_aside):
        for place in (tmp_path / "new", tmp_path / "old.txt"):
            with pytest.raises(KeyboardInterrupt), make(place, overwrite=True) as aside:
                (aside / "part" if aside.is_dir() else aside).write_text("half")
                raise KeyboardInterrupt
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"old.txt": "before"}


def test_a_file_is_either_old_or_new_at_every_moment(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with written_aside(place, overwrite=True) as aside:
        aside.write_text("new")
        assert place.read_text() == "old"
        assert aside.parent == place.parent  # renaming across file systems is not atomic
    assert place.read_text() == "new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"), written_aside(tmp_path / "a.txt"):
        pass


def test_a_place_under_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), written_aside(tmp_path / "file" / "a.txt"):
        pass


def test_the_metadata_of_a_single_file_says_what_other_programs_look_for(pipelines: Pipelines, tmp_path: Path) -> None:
    with safe_open(save_file(load(pipelines("sd2")[1]), tmp_path / "one.safetensors"), "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["format"] == "pt"
    stated = json.loads(metadata["sfumato"])
    assert stated["kind"] == "openclip"
    assert stated["unet"]["_class_name"] == "UNet2DConditionModel"
