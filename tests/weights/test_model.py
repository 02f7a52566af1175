"""The frozen bundle: its denoiser, its hashes, its moves; and what is told of a model without loading it."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.errors import ModelFileError, ModelNotFoundError
from sfumato.model import Model, hash_tensors
from sfumato.weights.describe import describe
from sfumato.weights.hashing import hash_file
from sfumato.weights.load import load
from sfumato.weights.locate import home
from sfumato.weights.save import save_file

Pipelines = Callable[[str], tuple[Any, Path]]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sd1-inpaint"])
def test_the_denoiser_is_the_papers_formula_around_diffusers_unet(pipelines: Pipelines, kind: str) -> None:
    pipeline, folder = pipelines(kind)
    model = load(folder)
    told = model.text.sized(model.text.encode("a horse"), height=16, width=16)
    noise = torch.Generator().manual_seed(4)
    x = 3 * torch.randn(1, 4, 8, 8, generator=noise)
    seen = x
    if kind == "sd1-inpaint":
        told = replace(told, concat=torch.randn(1, 5, 8, 8, generator=noise))
    timestep = 500
    sigma = model.schedule.sigmas[timestep]
    seen = x / (1 + sigma**2) ** 0.5
    if told.concat is not None:
        seen = torch.cat([seen, told.concat], dim=1)
    added = {"text_embeds": told.pooled, "time_ids": told.size}
    output = pipeline.unet(seen, timestep, told.context, added_cond_kwargs=added).sample
    velocity = x / (1 + sigma**2) - output * sigma / (1 + sigma**2) ** 0.5  # Salimans and Ho 2022, appendix D
    expected = velocity if kind == "sd2" else x - sigma * output
    found = model.denoiser()(x, sigma, told)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * sigma + 1e-5)  # float32, scaled by sigma


def test_hashes_are_those_of_the_files_and_are_remembered(pipelines: Pipelines, tmp_path: Path) -> None:
    folder = pipelines("sdxl")[1]
    model = load(folder)
    assert set(model.hashes) == {"unet", "vae", "text_encoder", "text_encoder_2"}
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert model.hashes["unet"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert str(file.resolve()) in (home() / "hashes.json").read_text()
    single = save_file(model, tmp_path / "one.safetensors")
    assert load(single).hashes == {"checkpoint": hashlib.sha256(single.read_bytes()).hexdigest()}


def test_a_hash_is_computed_again_when_the_file_has_changed_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    first = hash_file(path)
    state = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert hash_file(path) == first  # same size and time: remembered
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert hash_file(path) == hashlib.sha256(b"two").hexdigest()
    (home() / "hashes.json").write_text("[broken")
    assert hash_file(path) == hashlib.sha256(b"two").hexdigest()
    with pytest.raises(ModelFileError, match="cannot be read"):
        hash_file(tmp_path / "gone")


def test_a_model_made_in_memory_is_hashed_by_its_tensors(pipelines: Pipelines) -> None:
    model = replace(load(pipelines("sd1")[1]), hash_files=None)
    same = replace(load(pipelines("sd1")[1]), hash_files=None)
    assert model.hashes == same.hashes
    assert set(model.hashes) == {"unet", "vae", "text_encoder"}
    with torch.no_grad():
        same.unet.conv_in.weight[0, 0, 0, 0] += 1
    changed = replace(same)
    assert changed.hashes["unet"] != model.hashes["unet"]
    assert changed.hashes["vae"] == model.hashes["vae"]


def test_the_hash_of_tensors_tells_names_types_shapes_and_values_apart() -> None:
    base = {"a": torch.zeros(2, 3)}
    others = [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3).half()},
        {"a": torch.ones(2, 3)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(0)},
    ]
    assert len({hash_tensors(each) for each in [base, *others]}) == 6
    assert hash_tensors({"a": torch.zeros(3, 2).T}) == hash_tensors(base)


def test_a_model_moves_into_a_precision_with_all_its_networks(pipelines: Pipelines) -> None:
    model = load(pipelines("sd1")[1])
    moved: Model = model.to(dtype=torch.bfloat16)
    assert moved is model
    assert model.dtype is torch.bfloat16
    assert model.autoencoder.decoder.conv_in.weight.dtype is torch.bfloat16
    assert next(model.text.encoders[0].parameters()).dtype is torch.bfloat16
    large = load(pipelines("sdxl")[1]).to(dtype=torch.float16)
    assert large.autoencoder.decoder.conv_in.weight.dtype is torch.float32  # SDXL's overflows in float16


def test_a_description_counts_what_is_there(pipelines: Pipelines, tmp_path: Path) -> None:
    pipeline, folder = pipelines("sdxl")
    for path in (folder, save_file(load(folder), tmp_path / "one.safetensors")):
        found = describe(path)
        assert found.family == "sfumato"
        assert found.prediction == "epsilon"
        assert found.problem is None
        assert list(found.components) == ["unet", "vae", "text_encoder", "text_encoder_2"]
        for name, part in found.components.items():
            network = getattr(pipeline, name)
            count = sum(parameter.numel() for parameter in network.parameters())
            assert (part.parameters, part.size, part.dtypes) == (count, 4 * count, ("F32",))


def test_a_description_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        describe("org/nothing")
    with pytest.raises(ModelFileError, match="no model_index"):
        describe(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelFileError, match="an HTML page"):
        describe(tmp_path / "a.safetensors")
