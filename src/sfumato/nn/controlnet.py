"""ControlNet: a copy of a UNet's way down that sees a picture and adds to the UNet's skips. Zhang et al. 2023."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.additions import Context
from sfumato.nn.blocks import direct
from sfumato.nn.config import Options, check_values, known_options, plain, unsupported
from sfumato.nn.unet import DownPath, UNet, UNetConfig, per_level

ORDERS = ("rgb", "bgr")
# Of a UNet's options, what a ControlNet's configuration has no word for, as it has no way up.
UNET_ONLY = ("up_block_types", "out_channels", "sample_size", "reverse_transformer_layers_per_block")


@dataclass(frozen=True)
class ControlNetConfig:
    """What a ControlNet's `config.json` says, under diffusers' names.

    `unet` describes the UNet whose way down it is. `global_pool_conditions`: what it adds is averaged over all cells
    (the shuffle model).
    """

    unet: UNetConfig
    conditioning_channels: int = 3
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
    controlnet_conditioning_channel_order: str = "rgb"
    global_pool_conditions: bool = False

    def __post_init__(self) -> None:
        check_values(self, ("conditioning_channels", "conditioning_embedding_out_channels"))
        order = self.controlnet_conditioning_channel_order
        if order not in ORDERS:
            raise unsupported("ControlNetConfig", "controlnet_conditioning_channel_order", order, " or ".join(ORDERS))

    @property
    def stride(self) -> int:
        """Pixels of the picture for each latent cell, in each direction."""
        return int(2 ** (len(self.conditioning_embedding_out_channels) - 1))

    @classmethod
    def from_json(cls, data: Options) -> "ControlNetConfig":
        """The config that diffusers' `config.json` states. Raises ConfigError naming what we cannot honour."""
        mine = {field.name for field in fields(cls)} - {"unet"}
        rest = {key: value for key, value in data.items() if key not in mine} if isinstance(data, Mapping) else data
        if isinstance(rest, dict):
            down = rest.get("down_block_types")
            if isinstance(down, list | tuple) and all(isinstance(kind, str) for kind in down):
                rest["up_block_types"] = [kind.replace("Down", "Up") for kind in reversed(down)]
            if "in_channels" in rest:
                rest["out_channels"] = rest["in_channels"]
        own = {key: value for key, value in data.items() if key in mine}
        return cls(UNetConfig.from_json(rest), **known_options(cls, own, fixed={}))

    def to_json(self) -> dict[str, object]:
        """The same as diffusers writes it, so that diffusers can read it."""
        unet = {name: value for name, value in self.unet.to_json().items() if name not in UNET_ONLY}
        own = {field.name: plain(getattr(self, field.name)) for field in fields(self) if field.name != "unet"}
        return {**unet, **own, "_class_name": "ControlNetModel"}


@dataclass(frozen=True)
class Residuals:
    """What a ControlNet adds to a UNet: to each map that the way down leaves, and to the lowest level's."""

    skips: tuple[Tensor, ...]
    middle: Tensor


class HintEmbedding(nn.Module):
    """Convolutions that bring a picture to the size and width of a latent's first feature map."""

    def __init__(self, channels: int, widths: tuple[int, ...], out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, C, h, w]."""
        x = F.silu(self.conv_in(picture))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)  # type: ignore[no-any-return]


class ControlNet(DownPath):
    """Zhang et al. 2023. Its last layers are zero at first, so that an untrained one changes nothing."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__(config.unet)
        self.control = config
        channels, count = config.unet.block_out_channels, config.unet.levels
        self.controlnet_cond_embedding = HintEmbedding(
            config.conditioning_channels, config.conditioning_embedding_out_channels, channels[0]
        )
        widths = [channels[0]]
        for level, layers in enumerate(per_level(config.unet.layers_per_block, count)):
            widths += [channels[level]] * (layers + (level < count - 1))
        self.controlnet_down_blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        self.controlnet_mid_block = nn.Conv2d(channels[-1], channels[-1], 1)

    @classmethod
    @torch.no_grad()
    def of(cls, unet: UNet, stride: int = 8) -> "ControlNet":
        """The beginning of a training: a copy of this UNet's way down, which adds zero to it.

        `stride`: pixels of a picture for each latent cell, a power of two, at most 8. It sees the latent alone, also
        beside a UNet that sees a mask and a masked picture too.
        """
        channels = unet.config.out_channels
        seen = ControlNetConfig.conditioning_embedding_out_channels[: stride.bit_length()]
        config = ControlNetConfig(replace(unet.config, in_channels=channels), conditioning_embedding_out_channels=seen)
        network = cls(config).to(unet.conv_in.weight)
        theirs = unet.state_dict()
        for name, weight in network.state_dict().items():
            if name in theirs:
                weight.copy_(theirs[name][:, :channels] if name == "conv_in.weight" else theirs[name])
        last = (
            network.controlnet_cond_embedding.conv_out,
            network.controlnet_down_blocks,
            network.controlnet_mid_block,
        )
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        return network

    def see(self, picture: Tensor) -> Tensor:
        """The embedding of a picture [B, 3, H, W] in [0, 1], [B, C, h, w]: the same at every step of a run."""
        ordered = picture.flip(1) if self.control.controlnet_conditioning_channel_order == "bgr" else picture
        return self.controlnet_cond_embedding(ordered)  # type: ignore[no-any-return]

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        seen: Tensor,
        pooled: Tensor | None = None,
        size: Tensor | None = None,
    ) -> Residuals:
        """What to add to a UNet that gets the same x, timestep, context, pooled and size; `seen` is from `see`."""
        embedding = F.silu(self.embed(timestep, x.dtype, pooled, size))
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last)) + seen
        maps, lowest = self.descend(x, embedding, Context(context), direct)
        skips = [layer(each) for layer, each in zip(self.controlnet_down_blocks, maps, strict=True)]
        middle = self.controlnet_mid_block(lowest)
        if self.control.global_pool_conditions:
            return Residuals(
                tuple(each.mean((2, 3), keepdim=True) for each in skips), middle.mean((2, 3), keepdim=True)
            )
        return Residuals(tuple(skips), middle)
