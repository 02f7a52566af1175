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


def sizes_of(family: str, *, small: bool) -> Any:
    """The configurations of a family's networks; small ones have a fifth of the UNet's widths, a quarter of others'."""
    from sfumato.weights.families import FAMILIES, blueprint

    sizes = blueprint(FAMILIES[family])
    if not small:
        return sizes
    unet, autoencoder = sizes.unet, sizes.autoencoder
    channels = tuple(width // 5 for width in unet.block_out_channels)
    heads = unet.attention_head_dim
    text = tuple(
        replace(
            each,
            hidden_size=each.hidden_size // 4,
            intermediate_size=each.intermediate_size // 4,
            num_hidden_layers=each.num_hidden_layers // 4,
            num_attention_heads=each.num_attention_heads // 4,
            projection_dim=each.projection_dim // 4,
        )
        for each in sizes.text
    )
    added = unet.projection_class_embeddings_input_dim
    return replace(
        sizes,
        text=text,
        autoencoder=replace(
            autoencoder, block_out_channels=tuple(width // 4 for width in autoencoder.block_out_channels)
        ),
        unet=replace(
            unet,
            block_out_channels=channels,
            attention_head_dim=heads if isinstance(heads, int) else tuple(width // 32 for width in channels),
            cross_attention_dim=unet.cross_attention_dim // 4,
            projection_class_embeddings_input_dim=None if added is None else added - text[-1].projection_dim * 3,
        ),
    )


def model(folder: Path, family: str, dtype: str = "float16", *, small: bool = False) -> Path:
    """A model of a family, by its name, as a diffusers folder."""
    from sfumato.diffusion.presets import from_scheduler_config
    from sfumato.diffusion.schedule import from_scheduler_config as schedule_from_config
    from sfumato.model import Model
    from sfumato.nn.autoencoder import Autoencoder
    from sfumato.nn.clip import TextEncoder
    from sfumato.nn.unet import UNet
    from sfumato.text.clip_vocabulary import clip_tokenizer
    from sfumato.text.encode import SD1, SDXL, TextStack
    from sfumato.weights.save import networks_of, write_folder

    sizes = sizes_of(family, small=small)
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


def controlnet(folder: Path, family: str, *, small: bool = False) -> Path:
    """A ControlNet for a family, as a diffusers folder."""
    from sfumato.nn.controlnet import ControlNet, ControlNetConfig

    config = ControlNetConfig(replace(sizes_of(family, small=small).unet, in_channels=4))
    with torch.device("meta"):
        state = ControlNet(config).state_dict()
    write(folder / "diffusion_pytorch_model.safetensors", shapes_of(state))
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    return folder


def lora(path: Path, family: str, *, small: bool = False) -> Path:
    """A LoRA of all projections of a family's UNet."""
    from sfumato.nn.lora import adaptable
    from sfumato.nn.unet import UNet

    with torch.device("meta"):
        layers = adaptable(UNet(sizes_of(family, small=small).unet))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        if "attentions" in name:
            outputs, inputs, *kernel = layer.weight.shape
            ones = tuple(1 for _ in kernel)
            shapes[f"unet.{name}.lora_A.weight"] = (RANK, inputs, *kernel)
            shapes[f"unet.{name}.lora_B.weight"] = (outputs, RANK, *ones)
    return write(path, shapes)


def ip_adapter(folder: Path, family: str, *, small: bool = False) -> Path:
    """An IP-Adapter for a family, with the image encoder that most of them were trained with, ViT-H, beside it."""
    from sfumato.nn.clip_vision import VIT_H, ImageEncoder
    from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
    from sfumato.nn.unet import UNet
    from sfumato.weights.ip_adapter_file import ways

    config = sizes_of(family, small=small).unet
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
