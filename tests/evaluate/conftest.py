"""A tiny model with random weights, put together in memory."""

from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import nn

from sfumato.diffusion.schedule import from_scheduler_config as schedule_of
from sfumato.diffusion.scheduler_config import from_scheduler_config
from sfumato.model import Family, Model
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.text.clip_vocabulary import clip_tokenizer
from sfumato.text.encode import SD1, TextStack

SIZE = 64  # pixels; 8 x 8 latent cells with a stride of 8
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
UNET = UNetConfig(
    block_out_channels=(16, 32),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    cross_attention_dim=32,
    attention_head_dim=4,
    norm_num_groups=8,
)
AUTOENCODER = AutoencoderConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)
TEXT = TextEncoderConfig(hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4)


N = TypeVar("N", bound=nn.Module)


def filled(network: N, seed: int) -> N:
    """The network with small random weights of its own, frozen."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1, generator=draw)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def model() -> Model:
    """An SD 1.x that draws nothing that anybody would recognise."""
    return Model(
        name="tiny",
        source=Path("nowhere"),
        family=Family(name="tiny", title="tiny", text="clip", size=SIZE, steps=2, guidance=2.0),
        unet=filled(UNet(UNET), 1),
        autoencoder=filled(Autoencoder(AUTOENCODER), 2),
        text=TextStack((clip_tokenizer(),), (filled(TextEncoder(TEXT), 3),), SD1),
        schedule=schedule_of(SCHEDULER),
        sampling=from_scheduler_config(SCHEDULER),
        prediction="epsilon",
    )
