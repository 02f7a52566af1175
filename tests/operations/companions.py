"""Tiny models with a companion of random weights, and the nine-channel model that it comes to, added up by hand."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sfumato.model import Model
from sfumato.nn.lora import CONVOLUTIONS, TRANSFORMERS, Adapters, Target, create
from sfumato.nn.widened import widened
from sfumato.weights.companion_save import save_companion
from sfumato.weights.component_files import COMPANION_FILE
from sfumato.weights.families import inpainting_family
from sfumato.weights.load import load
from sfumato.weights.save import save_folder

TARGETS = (Target(TRANSFORMERS, 2, 4.0), Target(CONVOLUTIONS, 3))


def parts(model: Model, seed: int = 7, targets: tuple[Target, ...] = TARGETS) -> tuple[Adapters, torch.nn.Conv2d]:
    """What a training leaves: adapters of a widened UNet, and its first layer, with random numbers that float16 has."""
    wide = widened(model.unet)
    adapters = create(wide, targets, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, adapter in adapters.items():
            adapter.up.copy_((torch.randn(adapter.up.shape, generator=generator) * 0.1).half())
            adapter.down.copy_(adapter.down.half())
        for tensor in (wide.conv_in.weight, wide.conv_in.bias):
            tensor.copy_((tensor + torch.randn(tensor.shape, generator=generator) * 0.1).half())
    return adapters, wide.conv_in


def with_companion(source: Path, folder: Path, seed: int = 7) -> Path:
    """A copy of a model's folder with a companion in it."""
    shutil.copytree(source, folder)
    model = load(source)
    save_companion(folder / COMPANION_FILE, *parts(model, seed), model)
    return folder


def by_hand(model: Model, seed: int = 7) -> dict[str, torch.Tensor]:
    """The tensors of the nine-channel UNet: W + alpha / rank * up @ down, and the first layer as it is."""
    adapters, first = parts(model, seed)
    state = dict(model.unet.state_dict())
    for path, adapter in adapters.items():
        change = torch.einsum("or,r...->o...", adapter.up.flatten(1).double(), adapter.down.double())
        weight = state[f"{path}.weight"]
        state[f"{path}.weight"] = (weight + adapter.alpha / adapter.rank * change.reshape(weight.shape)).float()
    return state | {"conv_in.weight": first.weight, "conv_in.bias": first.bias}


def nine_channels(model: Model, folder: Path, seed: int = 7) -> Model:
    """The same as a whole inpainting model, from a folder of its own."""
    wide: Any = widened(model.unet)
    wide.load_state_dict(by_hand(model, seed), strict=True, assign=True)
    family = inpainting_family(model.family)
    whole = replace(model, unet=wide, family=family, files={}, hash_files=None, companion=None)
    return load(save_folder(whole, folder))
