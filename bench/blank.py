"""Models of the published sizes, and what goes beside them, whose weights are all zero: files that take no room.

For what depends on sizes alone, such as memory. A file is a header and a hole, which reads as zeros.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RANK = 16
TYPES = {"float16": ("F16", 2), "float32": ("F32", 4)}
TOKENS = 4  # of a picture in an IP-Adapter


def write(path: Path, shapes: Mapping[str, Iterable[int]], dtype: str = "float16") -> Path:
    """A safetensors file of zeros."""
    name, width = TYPES[dtype]
    table, position = {}, 0
    for key, shape in shapes.items():
        end = position + torch.Size(shape).numel() * width
        table[key] = {"dtype": name, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(table).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + position)
    return path


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def model(folder: Path, family: str, dtype: str = "float16") -> Path:
    """A model of a family, by its name, as a diffusers folder."""
    from sfumato.diffusion.presets import from_scheduler_config
    from sfumato.diffusion.schedule import from_scheduler_config as schedule_from_config
    from sfumato.model import Model
    from sfumato.nn.autoencoder import Autoencoder
    from sfumato.nn.clip import TextEncoder
    from sfumato.nn.unet import UNet
    from sfumato.text.clip_vocabulary import clip_tokenizer
    from sfumato.text.encode import SD1, SDXL, TextStack
    from sfumato.weights.families import FAMILIES, blueprint
    from sfumato.weights.save import networks_of, write_folder

    sizes = blueprint(FAMILIES[family])
    scheduler = {**sizes.scheduler, "prediction_type": "epsilon"}
    with torch.device("meta"):
        made = Model(
            name=family,
            source=folder,
            family=sizes.family,
            unet=UNet(sizes.unet),
            autoencoder=Autoencoder(sizes.autoencoder),
            text=TextStack(
                tuple(clip_tokenizer() for _ in sizes.text),
                tuple(TextEncoder(each) for each in sizes.text),
                SDXL if len(sizes.text) > 1 else SD1,
            ),
            schedule=schedule_from_config(scheduler),
            sampling=from_scheduler_config(scheduler),
            prediction="epsilon",
            scheduler=scheduler,
        )
    states = {name: network.state_dict() for name, network, _ in networks_of(made)}

    def write_network(name: str, file: Path) -> None:
        write(file, shapes_of(states[name]), dtype)

    folder.mkdir(parents=True)
    write_folder(made, folder, write_network)
    return folder


def unet_config(family: str) -> Any:
    """The configuration of a family's UNet."""
    from sfumato.weights.families import FAMILIES, blueprint

    return blueprint(FAMILIES[family]).unet


def controlnet(folder: Path, family: str) -> Path:
    """A ControlNet for a family, as a diffusers folder."""
    from sfumato.nn.controlnet import ControlNet, ControlNetConfig

    config = ControlNetConfig(replace(unet_config(family), in_channels=4))
    with torch.device("meta"):
        state = ControlNet(config).state_dict()
    write(folder / "diffusion_pytorch_model.safetensors", shapes_of(state))
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    return folder


def lora(path: Path, family: str) -> Path:
    """A LoRA of all projections of a family's UNet."""
    from sfumato.nn.lora import adaptable
    from sfumato.nn.unet import UNet

    with torch.device("meta"):
        layers = adaptable(UNet(unet_config(family)))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        if "attentions" in name:
            outputs, inputs, *kernel = layer.weight.shape
            ones = tuple(1 for _ in kernel)
            shapes[f"unet.{name}.lora_A.weight"] = (RANK, inputs, *kernel)
            shapes[f"unet.{name}.lora_B.weight"] = (outputs, RANK, *ones)
    return write(path, shapes)


def ip_adapter(folder: Path, family: str) -> Path:
    """An IP-Adapter for a family, with the image encoder that most of them were trained with, ViT-H, beside it."""
    from sfumato.nn.clip_vision import VIT_H, ImageEncoder
    from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
    from sfumato.nn.unet import UNet
    from sfumato.weights.ip_adapter_file import ways

    config = unet_config(family)
    with torch.device("meta"):
        down, up, middle = ways(UNet(config))
        seen, context = VIT_H.projection_dim, config.cross_attention_dim
        adapter = IPAdapter(
            IPAdapterConfig(form="plain", seen=seen, context=context, widths=(*down, *up, *middle), tokens=TOKENS)
        )
        encoder: nn.Module = ImageEncoder(VIT_H)
    write(folder / "models" / "ip-adapter.safetensors", shapes_of(adapter.state_dict()))
    write(folder / "models" / "image_encoder" / "model.safetensors", shapes_of(encoder.state_dict()))
    return folder / "models" / "ip-adapter.safetensors"


def upscaler(path: Path) -> Path:
    """ESRGAN's network of the published size, four times."""
    from sfumato.nn.upscaler import RRDBNet

    with torch.device("meta"):
        state = RRDBNet(features=64, blocks=23, growth=32, doublings=2).state_dict()
    return write(path, shapes_of(state), "float32")
