"""Verified files: whole, finite, and with the hashes that were told."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.errors import ModelFileError, WeightsError
from sfumato.weights.load import load
from sfumato.weights.save import save_file as save_model
from sfumato.weights.verify import verify

Pipelines = Callable[[str], tuple[Any, Path]]


def test_a_whole_model_is_verified_with_its_hashes(pipelines: Pipelines, tmp_path: Path) -> None:
    folder = pipelines("sd1")[1]
    found = verify(folder)
    assert set(found.sha256) == {"unet", "vae", "text_encoder"}
    assert found.sha256 == load(folder).hashes
    tensors = [load_file(path) for path in folder.rglob("*.safetensors")]
    assert found.numbers == sum(tensor.numel() for each in tensors for tensor in each.values())
    single = save_model(load(folder), tmp_path / "one.safetensors")
    digest = hashlib.sha256(single.read_bytes()).hexdigest()
    assert verify(single, expected=digest[:10]).compared == ("one.safetensors: the sha256 that was given",)
    with pytest.raises(ModelFileError, match=f"its sha256 is {digest}, not 0123456789"):
        verify(single, expected="0123456789")
    with pytest.raises(ModelFileError, match="each with a sha256 of its own"):
        verify(folder, expected=digest)


def test_numbers_that_are_not_finite_are_counted_wherever_they_are(pipelines: Pipelines, tmp_path: Path) -> None:
    tensors = {"lora_unet_a.lora_down.weight": torch.ones(2, 4), "lora_unet_a.lora_up.weight": torch.ones(4, 2)}
    tensors["lora_unet_a.lora_up.weight"][1, 1] = float("nan")
    save_file(tensors, tmp_path / "lora.safetensors")
    torch.save(tensors, tmp_path / "lora.pt")
    for name in ("lora.safetensors", "lora.pt"):
        with pytest.raises(ModelFileError, match=r"1 of 8 numbers of 'lora_unet_a\.lora_up\.weight' are not finite"):
            verify(tmp_path / name)


def test_kohya_s_hash_of_the_tensors_is_compared(tmp_path: Path) -> None:
    tensors = {"lora_unet_a.lora_down.weight": torch.ones(2, 4), "lora_unet_a.lora_up.weight": torch.ones(4, 2)}
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    content = path.read_bytes()
    told = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    save_file(tensors, path, {"sshs_model_hash": told})
    assert verify(path).compared == ("lora.safetensors: its sshs_model_hash",)
    save_file(tensors, path, {"sshs_model_hash": "0" * 64})
    with pytest.raises(ModelFileError, match="not those that its sshs_model_hash is of"):
        verify(path)


def test_a_blob_of_the_cache_has_to_have_the_hash_that_it_is_called_by(tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(2, 768)}, tmp_path / "a")
    digest = hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    (tmp_path / "a").rename(tmp_path / digest)
    (tmp_path / "word.safetensors").symlink_to(tmp_path / digest)
    assert verify(tmp_path / "word.safetensors").compared == ("word.safetensors: the hub's sha256",)
    (tmp_path / digest).rename(tmp_path / ("0" * 64))
    (tmp_path / "word.safetensors").unlink()
    (tmp_path / "word.safetensors").symlink_to(tmp_path / ("0" * 64))
    with pytest.raises(ModelFileError, match="damaged: its sha256"):
        verify(tmp_path / "word.safetensors")


def test_a_checkpoint_that_lacks_a_tensor_is_not_verified_as_just_a_file(pipelines: Pipelines, tmp_path: Path) -> None:
    single = save_model(load(pipelines("sd1")[1]), tmp_path / "one.safetensors")
    tensors = load_file(single)
    from safetensors import safe_open

    with safe_open(single, "pt") as file:
        metadata = file.metadata()
    del tensors["model.diffusion_model.out.2.bias"]
    save_file(tensors, tmp_path / "less.safetensors", metadata)
    with pytest.raises(WeightsError, match="1 tensor missing"):
        verify(tmp_path / "less.safetensors")
