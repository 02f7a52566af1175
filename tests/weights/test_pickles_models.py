"""Models whose weights are pickles: whole checkpoints, folders with .bin parts, autoencoders, LoRAs, new words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save_file as write
from test_load_folder import same_weights

from sfumato.request import Lora
from sfumato.weights.describe import describe
from sfumato.weights.load import load
from sfumato.weights.save import save_file

Pipelines = Callable[[str], tuple[Any, Path]]
RENAMED = {"diffusion_pytorch_model": "diffusion_pytorch_model", "model": "pytorch_model"}


def to_pickles(folder: Path, target: Path, *, shards: bool = False) -> Path:
    """A copy of a diffusers folder with every weight as .bin, or as two .bin shards behind an index."""
    shutil.copytree(folder, target)
    for path in list(target.rglob("*.safetensors")):
        tensors = load_file(path)
        path.unlink()
        stem = RENAMED[path.stem]
        if not shards:
            torch.save(tensors, path.with_name(f"{stem}.bin"))
            continue
        places = {name: f"{stem}-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(tensors)}
        for file in set(places.values()):
            torch.save({name: tensors[name] for name in tensors if places[name] == file}, path.with_name(file))
        path.with_name(f"{stem}.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return target


def test_a_folder_with_pickles_is_the_model_that_the_other_folder_is(pipelines: Pipelines, tmp_path: Path) -> None:
    _, folder = pipelines("sd1")
    expected = load(folder)
    whole = load(to_pickles(folder, tmp_path / "whole"))
    assert same_weights(expected, whole)
    assert same_weights(expected, load(to_pickles(folder, tmp_path / "shards", shards=True)))
    assert [path.name for path in whole.files["unet"]] == ["diffusion_pytorch_model.bin"]


def test_an_autoencoder_in_a_training_checkpoint_takes_the_place_of_the_model_s_own(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    single = save_file(load(pipelines("sdxl")[1]), tmp_path / "one.safetensors")
    autoencoder = {
        name.removeprefix("first_stage_model."): tensor
        for name, tensor in load_file(single).items()
        if name.startswith("first_stage_model.")
    }
    torch.save({"state_dict": autoencoder, "epoch": 3}, tmp_path / "other.vae.pt")
    model = load(pipelines("sdxl")[1], vae=tmp_path / "other.vae.pt")
    assert same_weights(load(single), model)


def test_a_lora_in_a_pickle_acts_as_the_same_lora(pipelines: Pipelines, tmp_path: Path) -> None:
    _, folder = pipelines("sd1")
    made = load(folder).unet.state_dict()
    name = next(name for name in made if name.endswith("attn1.to_q.weight"))
    layer, (out, features) = "lora_unet_" + name.removesuffix(".weight").replace(".", "_"), made[name].shape
    tensors = {
        f"{layer}.lora_down.weight": torch.randn(2, features),
        f"{layer}.lora_up.weight": torch.randn(out, 2),
        f"{layer}.alpha": torch.tensor(2.0),
    }
    write(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "b.pt")
    one = load(folder, loras=[Lora(str(tmp_path / "a.safetensors"))])
    two = load(folder, loras=[Lora(str(tmp_path / "b.pt"))])
    assert same_weights(one, two)
    assert not same_weights(one, load(folder))
    assert describe(tmp_path / "b.pt").lora is not None
