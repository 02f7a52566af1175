"""Convolutional blocks that the UNet and the autoencoder are made of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfumato.nn.additions import Context
from sfumato.nn.attention import SpatialTransformer
from sfumato.nn.memory import add, silu
from sfumato.nn.norm import GroupNorm

Call = Callable[..., Tensor]
"""How a block runs a layer: `direct`, or `recomputed` to spend time instead of memory while training."""

Size = tuple[int, int]
"""Height and width."""

Join = Callable[[Tensor, Tensor], Tensor]
"""How a level on the way up takes in what the way down left: ([B, C, h, w], skip [B, S, h, w]) to [B, C + S, h, w]."""


def beside(x: Tensor, skip: Tensor) -> Tensor:
    """Both maps as they are, one after the other."""
    return torch.cat([x, skip], dim=1)


def direct(layer: nn.Module, *inputs: Tensor | Context | Size | None) -> Tensor:
    """`layer(*inputs)`."""
    return layer(*inputs)  # type: ignore[no-any-return]


def recomputed(layer: nn.Module, *inputs: Tensor | Context | Size | None) -> Tensor:
    """`layer(*inputs)`, computed a second time in the backward pass instead of being kept."""
    return checkpoint(layer, *inputs, use_reentrant=False)  # type: ignore[no-any-return]


def sinusoids(values: Tensor, width: int, *, cosine_first: bool, shift: float) -> Tensor:
    """Sines and cosines of each of `values` [N] at geometrically falling frequencies, [N, width] float32.

    Vaswani et al. 2017, section 3.5; `shift` moves the last frequency as diffusers' `freq_shift` does.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[:, None] * torch.exp(-math.log(10000) * steps / (half - shift))
    sine, cosine = angles.sin(), angles.cos()
    return F.pad(torch.cat([cosine, sine] if cosine_first else [sine, cosine], dim=1), (0, width % 2))


class Embedding(nn.Module):
    """Two linear layers with a SiLU between them, for the timestep and the added conditions.

    With `condition_width` a projection of `condition` [1, width] is added first, once it is set (nn/distilled.py).
    """

    def __init__(self, width: int, inner: int, *, condition_width: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, inner)
        self.linear_2 = nn.Linear(inner, inner)
        self.cond_proj = nn.Linear(condition_width, width, bias=False) if condition_width else None
        self.condition: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cond_proj is not None and self.condition is not None:
            x = x + self.cond_proj(self.condition.to(x))
        return self.linear_2(F.silu(self.linear_1(x)))  # type: ignore[no-any-return]


class ResnetBlock(nn.Module):
    """Two convolutions, each after group norm and SiLU, added to the input. He et al. 2016.

    With `embedding_width` an embedding of the timestep, already through its SiLU, is added between the two.
    """

    def __init__(
        self, channels: int, out_channels: int, *, groups: int, eps: float, embedding_width: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels, eps=eps)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding_width, out_channels) if embedding_width else None
        self.norm2 = GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """[B, C, h, w] and embedding [B, E] to [B, out, h, w]."""
        h = self.conv1(silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            h = add(h, self.time_emb_proj(embedding)[:, :, None, None])
        h = self.norm2(h)  # its own line: the map before it is let go before the next one is made
        h = self.conv2(silu(h))
        return add(h, x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """A convolution that halves height and width.

    The UNet pads all four sides; the autoencoder only the right and the bottom, as its training code did.
    """

    def __init__(self, channels: int, *, pad_all_sides: bool) -> None:
        super().__init__()
        self.pad_all_sides = pad_all_sides
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if pad_all_sides else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.pad_all_sides else F.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a convolution.

    Of the nine taps on a doubled map only four see different cells, so the two together equal one transposed
    convolution with stride 2. That is faster for large maps on a CPU (2x in float32, 1.2x in bfloat16 for the
    decoder's), slower for small ones.
    """

    transposed_from = 64 * 64
    """Cells from which on the transposed convolution is used; measured with 256 to 1280 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        """[B, C, h, w] to [B, C, 2h, 2w], or to the height and width of `size`."""
        doubled = (2 * x.shape[2], 2 * x.shape[3])
        height, width = size or doubled
        large = x.shape[2] * x.shape[3] >= self.transposed_from and x.device.type in ("cpu", "meta")
        # not where something adds to what the convolution itself returns (nn/lora.py), or pads it in another way
        large = large and type(self.conv) is nn.Conv2d and not self.conv._forward_hooks
        if large and (height, width) == doubled and not torch.is_grad_enabled():
            kernel = transposed_taps(transposed_taps(self.conv.weight, 2), 3).transpose(0, 1)
            return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)
        return self.conv(F.interpolate(x, size=(height, width), mode="nearest"))  # type: ignore[no-any-return]


def transposed_taps(weight: Tensor, dim: int) -> Tensor:
    """Three taps on a doubled map as the four taps of a transposed convolution with stride 2, along `dim`."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([last, middle + last, first + middle, first], dim)


@dataclass(frozen=True)
class Shared:
    """What all levels of one UNet have in common."""

    embedding_width: int
    context_width: int
    groups: int
    eps: float
    linear_projection: bool

    def resnet(self, channels: int, out_channels: int) -> ResnetBlock:
        """A resnet block of this UNet."""
        return ResnetBlock(
            channels, out_channels, groups=self.groups, eps=self.eps, embedding_width=self.embedding_width
        )

    def transformers(self, channels: int, heads: int, depths: Sequence[int]) -> nn.ModuleList:
        """A spatial transformer with that many blocks for each of `depths`."""
        return nn.ModuleList(
            SpatialTransformer(
                channels,
                self.context_width,
                heads=heads,
                depth=depth,
                groups=self.groups,
                linear_projection=self.linear_projection,
            )
            for depth in depths
        )


class DownLevel(nn.Module):
    """One resolution on the way down: resnet blocks, a transformer after each if `depths` is not empty, halving."""

    def __init__(
        self, shared: Shared, inputs: Sequence[int], channels: int, *, heads: int, depths: Sequence[int], halve: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(shared.resnet(width, channels) for width in inputs)
        self.attentions = shared.transformers(channels, heads, depths)
        self.downsamplers = nn.ModuleList([Downsample(channels, pad_all_sides=True)] if halve else [])

    def forward(
        self, x: Tensor, embedding: Tensor, context: Context, call: Call, added: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """[B, C, h, w] to the feature maps after each layer; the last one goes on.

        `added` is added to the last map before it is halved, or to the halved one where nothing attends: T2I-Adapters
        for SDXL were trained so.
        """
        maps = []
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            x = call(resnet, x, embedding)
            if attention is not None:
                x = call(attention, x, context)
            maps.append(x)
        if added is not None and self.attentions:
            maps[-1] = x = x + added
        for downsample in self.downsamplers:
            x = call(downsample, x)
            maps.append(x)
        if added is not None and not self.attentions:
            maps[-1] = x + added
        return tuple(maps)


class MidLevel(nn.Module):
    """The lowest resolution: a resnet block, a transformer, a resnet block; in distilled networks one, or none."""

    def __init__(self, shared: Shared, channels: int, *, heads: int, resnets: int, depth: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(shared.resnet(channels, channels) for _ in range(resnets))
        self.attentions = shared.transformers(channels, heads, [depth] * (resnets - 1))

    def forward(self, x: Tensor, embedding: Tensor, context: Context, call: Call) -> Tensor:
        """[B, C, h, w] to the same."""
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            x = call(resnet, x, embedding)
            if attention is not None:
                x = call(attention, x, context)
        return x


class UpLevel(nn.Module):
    """One resolution on the way up: each resnet block also sees the feature map that the way down left.

    `join` puts both together: `beside`, or another way (nn/freeu.py).
    """

    def __init__(
        self, shared: Shared, inputs: Sequence[int], channels: int, *, heads: int, depths: Sequence[int], double: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(shared.resnet(width, channels) for width in inputs)
        self.attentions = shared.transformers(channels, heads, depths)
        self.upsamplers = nn.ModuleList([Upsample(channels)] if double else [])
        self.join: Join = beside

    def forward(
        self, x: Tensor, skips: Sequence[Tensor], embedding: Tensor, context: Context, size: Size | None, call: Call
    ) -> Tensor:
        """[B, C, h, w] and one skip for each resnet block to the next higher resolution, of `size` if there is one."""
        for resnet, attention, skip in zip_longest(self.resnets, self.attentions, skips):
            x = call(resnet, self.join(x, skip), embedding)
            if attention is not None:
                x = call(attention, x, context)
        for upsample in self.upsamplers:
            x = call(upsample, x, size)
        return x
