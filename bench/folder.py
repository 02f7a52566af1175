"""The model that everybody runs: Stable Diffusion 1.5's sizes, random weights, as a diffusers folder on the disk.

Every weight is a float16 number, so that the files in float32 and in float16 hold the same values.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import hide_torchvision

SEED = 0
FILES = ("float32", "float16")


@dataclass(frozen=True)
class Sizes:
    """What a model is made of: UNet and autoencoder widths, text width, and the side of the pictures in pixels."""

    unet: tuple[int, ...]
    autoencoder: tuple[int, ...]
    text: int
    text_layers: int
    side: int

    @property
    def cells(self) -> int:
        """Latent cells along a side."""
        return self.side // 2 ** (len(self.autoencoder) - 1)


FULL = Sizes((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12, 512)
SMALL = Sizes((64, 128, 256, 256), (32, 64, 64, 64), 64, 2, 128)  # to try the measurements themselves, in seconds
NAMES = {"full": FULL, "small": SMALL}


def options(sizes: Sizes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the UNet and of the autoencoder, as diffusers names them."""
    from sfumato.weights.families import SD1_AUTOENCODER, SD1_UNET

    unet = {"block_out_channels": sizes.unet, "cross_attention_dim": sizes.text, "sample_size": sizes.cells}
    autoencoder = {"block_out_channels": sizes.autoencoder, "sample_size": sizes.side}
    return {**SD1_UNET.to_json(), **unet}, {**SD1_AUTOENCODER.to_json(), **autoencoder}


def hollow(sizes: Sizes) -> tuple[Any, Any]:
    """diffusers' UNet and autoencoder without weights: on the meta device."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet, autoencoder = options(sizes)
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(autoencoder)


def make(folder: Path, sizes: Sizes) -> None:
    """Write the model under `folder`/float32 and `folder`/float16, with the operations that its networks cost."""
    hide_torchvision()
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from sfumato.text.clip_vocabulary import clip_tokenizer
    from sfumato.weights.families import SD1_SCHEDULER

    torch.set_grad_enabled(False)
    unet, autoencoder = hollow(sizes)
    with torch.device("meta"):
        networks = {
            "unet": unet,
            "vae": autoencoder,
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=sizes.text,
                    intermediate_size=4 * sizes.text,
                    num_hidden_layers=sizes.text_layers,
                    num_attention_heads=sizes.text // 64,
                    vocab_size=49408,
                )
            ),
        }
    facts = operations(unet, autoencoder, sizes)
    generator = torch.Generator().manual_seed(SEED)
    for name, network in networks.items():
        networks[name] = network.to_empty(device="cpu").eval()
        fill(networks[name], generator)
    clip_tokenizer().save(folder / "vocabulary")
    pipeline = StableDiffusionPipeline(
        **networks,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "vocabulary"),
        scheduler=DDIMScheduler.from_config({**SD1_SCHEDULER, "_class_name": "DDIMScheduler"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "float32")
    pipeline.to(torch.float16).save_pretrained(folder / "float16")
    (folder / "facts.json").write_text(json.dumps(facts))


def fill(network: "torch.nn.Module", generator: "torch.Generator") -> None:  # noqa: F821
    """Give a network weights that keep activations near 1: neither overflow nor tiny numbers change the timing."""
    import torch

    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))  # position ids
        elif tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            tensor.copy_(tensor.half())
        else:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)


def operations(unet: Any, autoencoder: Any, sizes: Sizes) -> dict[str, Any]:
    """Floating-point operations of a UNet step of two and of one decoding, two for each multiply and add.

    Of convolutions as they are written, and of all matrix products, attention's included; nothing else.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    cells = sizes.cells
    with torch.device("meta"):
        x, context = torch.empty(2, 4, cells, cells), torch.empty(2, 77, sizes.text)
        with FlopCounterMode(display=False) as step:
            unet(x, torch.empty(2), context)
        with FlopCounterMode(display=False) as decode:
            autoencoder.decode(x[:1])
    totals = {"unet": step.get_total_flops(), "decode": decode.get_total_flops()}
    return {"operations": totals, "cells": cells, "text": sizes.text, "side": sizes.side}


def main() -> None:
    """Make the model of a name in a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", choices=NAMES)
    chosen = parser.parse_args()
    make(chosen.folder, NAMES[chosen.size])


if __name__ == "__main__":
    main()
