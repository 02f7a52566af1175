"""The autoencoder of Stable Diffusion: pictures to latents with an eighth of the height and width, and back."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor, nn

from sfumato.nn.attention import MapAttention
from sfumato.nn.blocks import Downsample, ResnetBlock, Upsample
from sfumato.nn.config import Options, check_values, known_options, plain, unsupported
from sfumato.nn.memory import silu
from sfumato.nn.norm import GroupNorm

EPS = 1e-6  # of every group norm; CompVis model.py
FIXED: dict[str, tuple[object, ...]] = {
    "act_fn": ("silu", "swish"),
    "shift_factor": (None, 0),
    "latents_mean": (None,),
    "latents_std": (None,),
}
SIZES = ("block_out_channels", "layers_per_block", "in_channels", "out_channels", "latent_channels", "norm_num_groups")
REQUIRED = ("block_out_channels", "down_block_types", "up_block_types", "layers_per_block")  # our defaults are SD's


@dataclass(frozen=True)
class AutoencoderConfig:
    """What `vae/config.json` says, under diffusers' names.

    `scaling_factor` is 1 / standard deviation of the latents: multiply what the encoder gives, divide what the decoder
    takes. `force_upcast` says that the weights overflow in float16.
    """

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 4
    layers_per_block: int = 2
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, int] = 512
    scaling_factor: float = 0.18215  # 1 / std of SD 1.x latents, Rombach et al. 2022
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        check_values(self, SIZES)
        if not 0 < self.scaling_factor < math.inf:
            raise unsupported("AutoencoderConfig", "scaling_factor", self.scaling_factor, "positive numbers")
        levels = len(self.block_out_channels)
        for option, allowed in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            types = getattr(self, option)
            if types != (allowed,) * levels:
                raise unsupported("AutoencoderConfig", option, types, f"{levels} times {allowed}")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise unsupported(
                    "AutoencoderConfig", "norm_num_groups", self.norm_num_groups, f"divisors of {channels}"
                )

    @property
    def stride(self) -> int:
        """Pixels per latent cell, in each direction."""
        return 2 ** (len(self.block_out_channels) - 1)  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Options) -> "AutoencoderConfig":
        """The config that diffusers' `vae/config.json` states. Raises ConfigError naming what we cannot honour."""
        return cls(**known_options(cls, data, fixed=FIXED, required=REQUIRED))

    def to_json(self) -> dict[str, object]:
        """The same as diffusers writes it, so that diffusers can read it."""
        stated = {field.name: plain(getattr(self, field.name)) for field in fields(self)}
        return {"_class_name": "AutoencoderKL", "act_fn": "silu", **stated}


@dataclass(frozen=True)
class Posterior:
    """The encoder's answer: a normal distribution of latents for each picture; mean and std [B, C, h, w]."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The latent that standard normal `noise` [B, C, h, w] picks; zeros pick the mean."""
        return self.mean + self.std * noise

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal, in nats per picture, [B]."""
        variance = self.std.square()
        return 0.5 * (self.mean.square() + variance - 1 - variance.log()).flatten(1).sum(1)


class Mid(nn.Module):
    """The lowest resolution: a resnet block, attention unless left out, a resnet block."""

    def __init__(self, channels: int, groups: int, *, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups=groups, eps=EPS) for _ in range(2))
        self.attentions = nn.ModuleList([MapAttention(channels, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.resnets
        x = first(x)
        for attention in self.attentions:
            x = attention(x)
        return last(x)  # type: ignore[no-any-return]


class EncoderLevel(nn.Module):
    """Resnet blocks at one resolution, then halving except at the lowest."""

    def __init__(self, inputs: Sequence[int], channels: int, groups: int, *, halve: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, channels, groups=groups, eps=EPS) for width in inputs)
        self.downsamplers = nn.ModuleList([Downsample(channels, pad_all_sides=False)] if halve else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class DecoderLevel(nn.Module):
    """Resnet blocks at one resolution, then doubling except at the highest."""

    def __init__(self, inputs: Sequence[int], channels: int, groups: int, *, double: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, channels, groups=groups, eps=EPS) for width in inputs)
        self.upsamplers = nn.ModuleList([Upsample(channels)] if double else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] to mean and log-variance, [B, 2C, h, w]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups, layers = config.block_out_channels, config.norm_num_groups, config.layers_per_block
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            EncoderLevel([before] + [width] * (layers - 1), width, groups, halve=index < len(widths) - 1)
            for index, (before, width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.mid_block = Mid(widths[-1], groups, attention=config.mid_block_add_attention)
        self.conv_norm_out = GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.mid_block(x)
        return self.conv_out(silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A latent [B, C, h, w] to pixels [B, 3, H, W]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups, layers = config.block_out_channels[::-1], config.norm_num_groups, config.layers_per_block
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Mid(widths[0], groups, attention=config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            DecoderLevel([before] + [width] * layers, width, groups, double=index < len(widths) - 1)
            for index, (before, width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.conv_norm_out = GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """The variational autoencoder whose latents are diffused. Rombach et al. 2022."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.use_post_quant_conv else None

    def encode(self, pixels: Tensor) -> Posterior:
        """Pixels [B, 3, H, W] in [-1, 1] to the posterior of their latents, not scaled."""
        return self.posterior(self.encoder(pixels))

    def posterior(self, moments: Tensor) -> Posterior:
        """What the encoder made, [B, 2C, h, w], as the distribution of latents."""
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = moments.chunk(2, dim=1)
        # The bounds keep the deviation finite; CompVis distributions.py
        return Posterior(mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)))

    def decode(self, latent: Tensor) -> Tensor:
        """A latent [B, C, h, w], not scaled, to pixels [B, 3, H, W] in about [-1, 1]."""
        if self.post_quant_conv is not None:
            latent = self.post_quant_conv(latent)
        return self.decoder(latent)  # type: ignore[no-any-return]


def decode_sliced(autoencoder: Autoencoder, latent: Tensor) -> Tensor:
    """`autoencoder.decode(latent)`, one picture at a time: the same values in the memory of one picture."""
    return torch.cat([autoencoder.decode(latent[index : index + 1]) for index in range(len(latent))])


def decode_tiled(autoencoder: Autoencoder, latent: Tensor, *, tile: int = 64, overlap: int = 16) -> Tensor:
    """Pixels [B, 3, H, W] of overlapping tiles of the latent [B, C, h, w], decoded one by one and blended.

    An approximation in the memory of one tile: group norm and attention see a tile instead of the whole picture, so
    colours may drift over a large picture; seams are hidden by blending. A latent of at most one tile is decoded
    whole, exactly. `tile` and `overlap` are in latent cells. Raises ValueError unless 0 < overlap < tile.
    """
    stride = autoencoder.config.stride
    areas = tile_areas(latent.shape[2], latent.shape[3], tile, overlap)
    if len(areas) == 1:
        return autoencoder.decode(latent)
    decoded = ((autoencoder.decode(latent[:, :, rows, columns]), rows, columns) for rows, columns in areas)
    parts = ((pixels, scaled(rows, stride), scaled(columns, stride)) for pixels, rows, columns in decoded)
    return blend(parts, latent.shape[2] * stride, latent.shape[3] * stride, overlap * stride)


def encode_tiled(autoencoder: Autoencoder, pixels: Tensor, *, tile: int = 64, overlap: int = 16) -> Posterior:
    """The posterior of overlapping tiles of the pixels [B, 3, H, W], encoded one by one, mean and std blended.

    An approximation, as in `decode_tiled`; `tile` and `overlap` are in latent cells. Raises ValueError unless
    0 < overlap < tile and height and width are multiples of the stride.
    """
    stride = autoencoder.config.stride
    if pixels.shape[2] % stride or pixels.shape[3] % stride:
        raise ValueError(f"{pixels.shape[3]}x{pixels.shape[2]} pixels; both must be multiples of {stride}")
    height, width = pixels.shape[2] // stride, pixels.shape[3] // stride
    areas = tile_areas(height, width, tile, overlap)
    if len(areas) == 1:
        return autoencoder.encode(pixels)
    parts = []
    for rows, columns in areas:
        posterior = autoencoder.encode(pixels[:, :, scaled(rows, stride), scaled(columns, stride)])
        parts.append((torch.cat([posterior.mean, posterior.std], dim=1), rows, columns))
    mean, std = blend(parts, height, width, overlap).chunk(2, dim=1)
    return Posterior(mean, std)


Area = tuple[slice, slice]
"""Rows and columns of a tile."""


def tile_areas(height: int, width: int, tile: int, overlap: int) -> list[Area]:
    """Tiles of equal size that cover height x width, evenly placed, overlapping by at least `overlap`."""
    if not 0 < overlap < tile:
        raise ValueError(f"overlap {overlap} is not between 0 and the tile's {tile}")
    return [
        (rows, columns) for rows in tile_spans(height, tile, overlap) for columns in tile_spans(width, tile, overlap)
    ]


def tile_spans(length: int, tile: int, overlap: int) -> list[slice]:
    """Spans of `tile`, or one of all, that cover `length`; the first starts at 0 and the last ends at `length`."""
    if length <= tile:
        return [slice(0, length)]
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    return [slice(start, start + tile) for start in starts]


def scaled(span: slice, factor: int) -> slice:
    """A span of cells as the span of their pixels."""
    return slice(span.start * factor, span.stop * factor)


def blend(parts: Iterable[tuple[Tensor, slice, slice]], height: int, width: int, ramp: int) -> Tensor:
    """Tiles [B, C, t, t] at their rows and columns, averaged with weights that rise over `ramp` from every edge."""
    total = weights = None
    for tile, rows, columns in parts:
        if total is None or weights is None:
            total = tile.new_zeros(*tile.shape[:2], height, width, dtype=torch.float32)
            weights = tile.new_zeros(height, width, dtype=torch.float32)
        weight = ramps(tile.shape[2], ramp, tile.device)[:, None] * ramps(tile.shape[3], ramp, tile.device)
        total[:, :, rows, columns] += tile * weight
        weights[rows, columns] += weight
        dtype = tile.dtype
    assert total is not None and weights is not None
    return (total / weights).to(dtype)


def ramps(length: int, ramp: int, device: torch.device) -> Tensor:
    """Weights [length] that rise linearly to 1 over `ramp` from both ends; never 0."""
    places = torch.arange(length, device=device, dtype=torch.float32)
    return torch.minimum(places + 1, length - places).clamp(max=ramp) / ramp
