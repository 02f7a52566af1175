"""The UNet of Stable Diffusion 1.x, 2.x and XL, and of inpainting models with nine input channels."""

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.nn.additions import NOTHING, Additions, Context
from sfumato.nn.attention import CrossAttention
from sfumato.nn.blocks import Call, DownLevel, Embedding, MidLevel, Shared, UpLevel, direct, recomputed, sinusoids
from sfumato.nn.config import Options, check_values, known_options, plain, unsupported
from sfumato.nn.memory import silu
from sfumato.nn.norm import GroupNorm

FIXED: dict[str, tuple[object, ...]] = {
    "center_input_sample": (False,),
    "only_cross_attention": (False, (False, False, False), (False, False, False, False)),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "dropout": (0,),
    "act_fn": ("silu", "swish"),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
HARMLESS = ("addition_embed_type_num_heads",)  # read only by kinds of addition_embed_type that we refuse
DOWN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}  # does the level attend to the context?
UP = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}
# Resnet blocks at the lowest resolution, a transformer between two of them. The distilled SSD-1B and Vega have one,
# BK-SDM's small and tiny none.
MIDDLE = {"UNetMidBlock2DCrossAttn": 2, "UNetMidBlock2D": 1, None: 0}

SIZES = (
    "block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim", "in_channels",
    "out_channels", "norm_num_groups",
)  # fmt: skip

D = TypeVar("D", int, "int | tuple[int, ...]")
Depths = int | tuple[int | tuple[int, ...], ...]


@dataclass(frozen=True)
class UNetConfig:
    """What `unet/config.json` says, under diffusers' names.

    `attention_head_dim` is the number of heads, of all levels or of each, whatever its name says: diffusers named it
    wrongly and kept it. `time_cond_proj_dim` is the width of the guidance that a distilled network embeds
    (nn/distilled.py). `upcast_attention` changes nothing here: attention accumulates in float32 in any precision.
    """

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    layers_per_block: int | tuple[int, ...] = 2
    cross_attention_dim: int = 1280
    attention_head_dim: int | tuple[int, ...] = 8
    transformer_layers_per_block: Depths = 1
    reverse_transformer_layers_per_block: Depths | None = None
    use_linear_projection: bool = False
    upcast_attention: bool | None = False
    in_channels: int = 4
    out_channels: int = 4
    sample_size: int | tuple[int, int] | None = None
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None

    def __post_init__(self) -> None:
        check_values(self, SIZES)
        levels = self.levels
        for option, allowed in (("down_block_types", DOWN), ("up_block_types", UP)):
            types = getattr(self, option)
            if len(types) != levels or not set(types) <= set(allowed):
                raise unsupported("UNetConfig", option, types, f"{levels} of {', '.join(allowed)}")
        if self.mid_block_type not in MIDDLE:
            raise unsupported("UNetConfig", "mid_block_type", self.mid_block_type, ", ".join(map(str, MIDDLE)))
        depths = ("transformer_layers_per_block", "reverse_transformer_layers_per_block")
        for option in ("layers_per_block", "attention_head_dim", *depths):
            value = getattr(self, option)
            if isinstance(value, tuple) and len(value) != levels:
                raise unsupported("UNetConfig", option, value, f"a number, or {levels} of them, one for each level")
        for channels, heads in zip(self.block_out_channels, per_level(self.attention_head_dim, levels), strict=True):
            if channels % heads:
                raise unsupported(
                    "UNetConfig", "attention_head_dim", self.attention_head_dim, f"divisors of {channels}"
                )
            if channels % self.norm_num_groups:
                raise unsupported("UNetConfig", "norm_num_groups", self.norm_num_groups, f"divisors of {channels}")
        self._check_added_conditions()
        nested = isinstance(self.transformer_layers_per_block, tuple) and any(
            isinstance(depth, tuple) for depth in self.transformer_layers_per_block
        )
        if nested and self.reverse_transformer_layers_per_block is None:
            raise ConfigError(
                "UNetConfig: transformer_layers_per_block with a list for each layer needs "
                "reverse_transformer_layers_per_block for the way up."
            )

    def _check_added_conditions(self) -> None:
        if self.addition_embed_type not in (None, "text_time"):
            raise unsupported("UNetConfig", "addition_embed_type", self.addition_embed_type, "null or 'text_time'")
        widths = (self.addition_time_embed_dim, self.projection_class_embeddings_input_dim)
        if self.addition_embed_type and not all(widths):
            raise ConfigError(
                "UNetConfig: addition_embed_type 'text_time' needs addition_time_embed_dim and "
                "projection_class_embeddings_input_dim."
            )

    @property
    def levels(self) -> int:
        """How many resolutions the network has."""
        return len(self.block_out_channels)

    @property
    def addition_width(self) -> int:
        """The width of the added condition: pooled text and embedded size; 0 without."""
        return (self.projection_class_embeddings_input_dim or 0) if self.addition_embed_type else 0

    @classmethod
    def from_json(cls, data: Options) -> "UNetConfig":
        """The config that diffusers' `unet/config.json` states. Raises ConfigError naming what we cannot honour."""
        return cls(**known_options(cls, data, fixed=FIXED, harmless=HARMLESS, required=("block_out_channels",)))

    def to_json(self) -> dict[str, object]:
        """The same as diffusers writes it, so that diffusers can read it."""
        stated = {field.name: plain(getattr(self, field.name)) for field in fields(self)}
        return {"_class_name": "UNet2DConditionModel", **stated}


def per_level(value: D | tuple[D, ...], levels: int) -> tuple[D, ...]:
    """`value` for each level."""
    return value if isinstance(value, tuple) else (value,) * levels


class DownPath(nn.Module):
    """The half of a UNet that a ControlNet has too: the way down and the lowest resolution."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, levels = config.block_out_channels, config.levels
        embedding_width = 4 * channels[0]
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = Embedding(channels[0], embedding_width, condition_width=config.time_cond_proj_dim)
        self.add_embedding = (
            Embedding(config.addition_width, embedding_width) if config.addition_embed_type is not None else None
        )
        self.shared = Shared(
            embedding_width=embedding_width,
            context_width=config.cross_attention_dim,
            groups=config.norm_num_groups,
            eps=config.norm_eps,
            linear_projection=config.use_linear_projection,
        )
        self.down_blocks = nn.ModuleList(down_levels(config, self.shared))
        self.mid_block = MidLevel(
            self.shared,
            channels[-1],
            heads=per_level(config.attention_head_dim, levels)[-1],
            resnets=MIDDLE[config.mid_block_type],
            depth=mid_depth(config.transformer_layers_per_block),
        )

    def descend(
        self, x: Tensor, embedding: Tensor, context: Context, call: Call, added: tuple[Tensor, ...] = ()
    ) -> tuple[list[Tensor], Tensor]:
        """The map [B, C, h, w] after the first convolution to all maps of the way down, and that of the lowest level.

        `added` are those of `Additions.levels`.
        """
        maps = [x]
        extra = list(added)
        for level in self.down_blocks:
            maps.extend(level(maps[-1], embedding, context, call, extra.pop(0) if extra else None))
        lowest = self.mid_block(maps[-1], embedding, context, call)
        return maps, lowest + extra[0] if extra else lowest

    def embed(self, timestep: Tensor, dtype: torch.dtype, pooled: Tensor | None, size: Tensor | None) -> Tensor:
        """The embedding of the timestep and the added conditions, [B, E]; sinusoids in float32, then in `dtype`."""
        config = self.config
        waves = sinusoids(
            timestep, config.block_out_channels[0], cosine_first=config.flip_sin_to_cos, shift=config.freq_shift
        )
        embedding: Tensor = self.time_embedding(waves.to(dtype))
        if self.add_embedding is None:
            if pooled is not None or size is not None:
                raise ValueError("this UNet takes no pooled text and no size: its addition_embed_type is null")
            return embedding
        if pooled is None or size is None:
            raise ValueError("this UNet needs pooled text and size: its addition_embed_type is text_time")
        sizes = sinusoids(
            size.flatten(),
            config.addition_time_embed_dim or 0,
            cosine_first=config.flip_sin_to_cos,
            shift=config.freq_shift,
        )
        added = torch.cat([pooled, sizes.view(len(size), -1).to(pooled.dtype)], dim=1)
        if added.shape[1] != config.addition_width:
            raise ValueError(
                f"pooled {tuple(pooled.shape)} and size {tuple(size.shape)} make {added.shape[1]} added features; "
                f"this UNet takes {config.addition_width}"
            )
        return embedding + self.add_embedding(added.to(dtype))  # type: ignore[no-any-return]


class UNet(DownPath):
    """Predicts noise, velocity or the clean latent from a noised latent. Rombach et al. 2022; Podell et al. 2023.

    Set `gradient_checkpointing` to compute activations a second time in training instead of keeping them.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.gradient_checkpointing = False
        channels = config.block_out_channels
        self.up_blocks = nn.ModuleList(up_levels(config, self.shared))
        self.conv_norm_out = GroupNorm(config.norm_num_groups, channels[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)
        for place, attention in enumerate(each for each in self.modules() if isinstance(each, CrossAttention)):
            attention.place = place

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        pooled: Tensor | None = None,
        size: Tensor | None = None,
        added: Additions = NOTHING,
    ) -> Tensor:
        """[B, in, h, w], timestep [B] (fractions allowed) and context [B, L, D] to [B, out, h, w].

        SDXL also takes pooled [B, P] and size [B, 6] (its refiner [B, 5]); other models refuse them with ValueError.
        `added` is what other networks add.
        """
        call: Call = recomputed if self.gradient_checkpointing and torch.is_grad_enabled() else direct
        embedding = F.silu(self.embed(timestep, x.dtype, pooled, size))
        seen = Context(context, added.images)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))  # which all that follows keeps
        skips, x = self.descend(x, embedding, seen, call, added.levels)
        if added.skips:
            skips = [skip + more for skip, more in zip(skips, added.skips, strict=True)]
        if added.middle is not None:
            x = x + added.middle
        for level in self.up_blocks:
            mine = [skips.pop() for _ in level.resnets]  # type: ignore[union-attr]
            target = tuple(skips[-1].shape[2:]) if skips else None  # twice the size, or one less for odd sizes
            x = level(x, mine, embedding, seen, target, call)
        return self.conv_out(silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


def layer_depths(depth: int | tuple[int, ...], layers: int) -> tuple[int, ...]:
    """Transformer blocks after each of `layers` resnet blocks."""
    if isinstance(depth, tuple):
        if len(depth) != layers:
            raise unsupported("UNetConfig", "transformer_layers_per_block", depth, f"a number, or {layers} of them")
        return depth
    return (depth,) * layers


def mid_depth(depths: Depths) -> int:
    """Transformer blocks at the lowest resolution."""
    last = depths[-1] if isinstance(depths, tuple) else depths
    return last[0] if isinstance(last, tuple) else last


def down_depths(config: UNetConfig) -> list[tuple[int, ...]]:
    """Transformer blocks after each resnet block of each level on the way down; none where it does not attend."""
    depths = per_level(config.transformer_layers_per_block, config.levels)
    layers = per_level(config.layers_per_block, config.levels)
    return [
        layer_depths(depth, count) if DOWN[kind] else ()
        for kind, depth, count in zip(config.down_block_types, depths, layers, strict=True)
    ]


def up_depths(config: UNetConfig) -> list[tuple[int, ...]]:
    """The same on the way up, lowest resolution first."""
    depths = config.reverse_transformer_layers_per_block
    if depths is None:
        depths = per_level(config.transformer_layers_per_block, config.levels)[::-1]
    layers = per_level(config.layers_per_block, config.levels)[::-1]
    return [
        layer_depths(depth, count + 1) if UP[kind] else ()
        for kind, depth, count in zip(config.up_block_types, per_level(depths, config.levels), layers, strict=True)
    ]


def down_levels(config: UNetConfig, shared: Shared) -> list[DownLevel]:
    """The levels on the way down, highest resolution first."""
    count = config.levels
    layers = per_level(config.layers_per_block, count)
    heads = per_level(config.attention_head_dim, count)
    depths = down_depths(config)
    levels = []
    for index, (before, channels) in enumerate(pairwise((config.block_out_channels[0], *config.block_out_channels))):
        levels.append(
            DownLevel(
                shared,
                [before] + [channels] * (layers[index] - 1),
                channels,
                heads=heads[index],
                depths=depths[index],
                halve=index < count - 1,
            )
        )
    return levels


def up_levels(config: UNetConfig, shared: Shared) -> list[UpLevel]:
    """The levels on the way up, lowest resolution first."""
    count = config.levels
    widths = config.block_out_channels[::-1]
    layers = per_level(config.layers_per_block, count)[::-1]
    heads = per_level(config.attention_head_dim, count)[::-1]
    depths = up_depths(config)
    levels = []
    for index, channels in enumerate(widths):
        below = widths[max(index - 1, 0)]
        above = widths[min(index + 1, count - 1)]
        # One more resnet block than on the way down: the last one takes the map that entered the level there.
        inputs = [below + channels] + [2 * channels] * (layers[index] - 1) + [channels + above]
        levels.append(
            UpLevel(
                shared,
                inputs,
                channels,
                heads=heads[index],
                depths=depths[index],
                double=index < count - 1,
            )
        )
    return levels
