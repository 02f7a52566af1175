"""ControlNet Union: one ControlNet for several kinds of pictures, told which it sees. https://github.com/xinsir6/ControlNetPlus

Attribute names are those of the published files, with their spelling.
"""

import copy
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.blocks import Embedding, sinusoids
from sfumato.nn.config import check_values
from sfumato.nn.controlnet import ControlNet, ControlNetConfig


@dataclass(frozen=True)
class ControlNetUnionConfig(ControlNetConfig):
    """What its `config.json` says: beside a ControlNet's, how many kinds it knows, and the sizes of what tells them."""

    num_control_type: int = 6
    num_trans_channel: int = 320
    num_trans_head: int = 8
    num_trans_layer: int = 1
    num_proj_channel: int = 320

    def __post_init__(self) -> None:
        super().__post_init__()
        check_values(self, ("num_control_type", "num_trans_channel", "num_trans_head", "num_proj_channel"))

    def to_json(self) -> dict[str, object]:
        """The same as diffusers writes it, so that diffusers can read it."""
        return {**super().to_json(), "_class_name": "ControlNetUnionModel"}


class Perceptron(nn.Module):
    """Two linear layers with CLIP's fast GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.c_fc(x)
        return self.c_proj(inner * torch.sigmoid(1.702 * inner))  # type: ignore[no-any-return]


class TaskBlock(nn.Module):
    """A transformer block over pictures that are told with their kind.

    The published network attends along the batch, not among the pictures of one run: its attention has the batch
    second. As a batch sees one picture, each looks at itself alone, which is what is computed here.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[1, B, C] to the same."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class ControlNetUnion(ControlNet):
    """A ControlNet whose embedding of a picture and of the timestep know the picture's kind. See `for_task`."""

    control: ControlNetUnionConfig

    def __init__(self, config: ControlNetUnionConfig) -> None:
        super().__init__(config)
        width = config.num_trans_channel
        self.task_embedding = nn.Parameter(torch.empty(config.num_control_type, width))
        self.transformer_layes = nn.ModuleList(
            TaskBlock(width, config.num_trans_head) for _ in range(config.num_trans_layer)
        )
        self.spatial_ch_projs = nn.Linear(width, config.num_proj_channel)
        waves = config.unet.addition_time_embed_dim or 0
        self.control_add_embedding = Embedding(waves * config.num_control_type, 4 * config.unet.block_out_channels[0])
        self.task = 0

    def for_task(self, task: int) -> Self:
        """The same network, told that it sees pictures of this kind."""
        told = copy.copy(self)
        told.task = task
        return told

    def see(self, picture: Tensor) -> Tensor:
        """The embedding of a picture [B, 3, H, W] in [0, 1] and of its kind, [B, C, h, w]."""
        seen = super().see(picture)
        x = (seen.mean((2, 3)) + self.task_embedding[self.task])[None]
        for layer in self.transformer_layes:
            x = layer(x)
        return seen + self.spatial_ch_projs(x[0])[:, :, None, None]  # type: ignore[no-any-return]

    def embed(self, timestep: Tensor, dtype: torch.dtype, pooled: Tensor | None, size: Tensor | None) -> Tensor:
        """The embedding of the timestep, the added conditions and the kind of picture, [B, E]."""
        config, count = self.config, self.control.num_control_type
        kinds = F.one_hot(torch.tensor(self.task, device=timestep.device), count).float()
        waves = sinusoids(
            kinds, config.addition_time_embed_dim or 0, cosine_first=config.flip_sin_to_cos, shift=config.freq_shift
        )
        told: Tensor = self.control_add_embedding(waves.view(1, -1).to(dtype))
        return super().embed(timestep, dtype, pooled, size) + told
