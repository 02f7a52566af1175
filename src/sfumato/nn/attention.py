"""Attention: the spatial transformer of the UNet and the single-headed attention of the autoencoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.additions import Context
from sfumato.nn.memory import add, multiply
from sfumato.nn.norm import GroupNorm

WRITTEN_OUT = 2**26  # attention weights that training on a CPU may hold at once for one layer


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of [B, L, D] on [B, S, D], in `heads` equal parts of D; [B, L, D]."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))  # [B, H, L, D/H]
    if q.requires_grad and q.device.type == "cpu" and q.numel() // q.shape[-1] * k.shape[2] <= WRITTEN_OUT:
        # The fused kernel's backward pass on CPUs is 6 to 12 times slower than three plain products.
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1)
        return (weights @ v).transpose(1, 2).flatten(2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-headed attention of a sequence on itself, or on a context of another width."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[B, L, D] and context [B, S, C] to [B, L, D]."""
        return self.to_out(attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))  # type: ignore[no-any-return]


class CrossAttention(Attention):
    """Attention on words, and on each picture beside them with keys and values of its own; what is found is added.

    `place` is this layer's number among the cross-attentions of its UNet. Ye et al. 2023, equation 5.
    """

    place = 0

    def forward(self, x: Tensor, context: Context) -> Tensor:  # type: ignore[override]
        """[B, L, D] and a context of C features to [B, L, D]."""
        if not context.images:
            return super().forward(x, context.words)
        query = self.to_q(x)
        found = attend(query, self.to_k(context.words), self.to_v(context.words), self.heads)
        for image in context.images:
            key, value = image.keys[self.place](image.tokens), image.values[self.place](image.tokens)
            seen = attend(query, key, value, self.heads) * image.weight
            found = found + seen * image.masks.get(x.shape[1], 1.0)
        return self.to_out(found)  # type: ignore[no-any-return]


class GatedGelu(nn.Module):
    """A linear layer whose one half is gated by the GELU of the other. Shazeer 2020, GEGLU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return multiply(F.gelu(gate), value)


class FeedForward(nn.Module):
    """Two linear layers around a gated GELU, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Self-attention, attention on the context and a feed-forward layer, each normalised before and added."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, context_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[B, L, D] and a context of C features to [B, L, D]."""
        normed = self.norm1(x)
        x = add(self.attn1(normed, normed), x)
        x = add(self.attn2(self.norm2(x), context), x)
        return add(self.ff(self.norm3(x)), x)


class SpatialTransformer(nn.Module):
    """Transformer blocks over the cells of a feature map, added to it.

    The projections in and out are 1x1 convolutions in SD 1.x and linear layers in SD 2.x and SDXL; the same
    arithmetic, with weights of other shapes.
    """

    def __init__(
        self, channels: int, context_width: int, *, heads: int, depth: int, groups: int, linear_projection: bool
    ) -> None:
        super().__init__()
        self.linear_projection = linear_projection
        self.norm = GroupNorm(groups, channels, eps=1e-6)  # not the UNet's norm_eps: CompVis attention.py
        self.proj_in = nn.Linear(channels, channels) if linear_projection else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(channels, context_width, heads) for _ in range(depth))
        self.proj_out = nn.Linear(channels, channels) if linear_projection else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[B, C, h, w] and a context to [B, C, h, w]."""
        normed = self.norm(x)
        cells = self.proj_in(to_cells(normed)) if self.linear_projection else to_cells(self.proj_in(normed))
        for block in self.transformer_blocks:
            cells = block(cells, context)
        if self.linear_projection:
            return add(to_map(self.proj_out(cells), x), x)
        return add(self.proj_out(to_map(cells, x)), x)


class MapAttention(nn.Module):
    """Attention of every cell of a feature map on every other with one head, added to the map."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, h, w]."""
        cells = to_cells(self.group_norm(x))
        attended = attend(self.to_q(cells), self.to_k(cells), self.to_v(cells), 1)
        return add(to_map(self.to_out(attended), x), x)


def to_cells(x: Tensor) -> Tensor:
    """[B, C, h, w] as [B, h*w, C]: a view when the memory is channels-last."""
    return x.flatten(2).transpose(1, 2)


def to_map(cells: Tensor, like: Tensor) -> Tensor:
    """[B, h*w, C] as [B, C, h, w] with the height and width of `like`: always a view, channels-last."""
    return cells.transpose(1, 2).view(len(cells), -1, *like.shape[2:])
