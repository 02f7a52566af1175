"""UNets whose self-attention is taken away or looked at, for guidance by what attention does. Weights are shared."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sfumato.nn.attention import Attention, TransformerBlock
from sfumato.nn.lora import twin
from sfumato.nn.unet import UNet


class IdentityAttention(nn.Module):
    """Self-attention whose map is the identity: every cell sees itself alone. Ahn et al. 2024, equation 14."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.to_q, self.to_k = attention.to_q, attention.to_k  # not used, but of the state that is shared
        self.to_v, self.to_out = attention.to_v, attention.to_out

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[B, L, D] to the same; the context is x again."""
        return self.to_out(self.to_v(context))  # type: ignore[no-any-return]


class WatchedAttention(nn.Module):
    """Self-attention that keeps its weights of the last call: `received` [B, L], what each cell got from all others.

    The mean over the heads, summed over the cells that look: 1 on average.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.to_q, self.to_k = attention.to_q, attention.to_k
        self.to_v, self.to_out = attention.to_v, attention.to_out
        self.received = torch.empty(0)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[B, L, D] and context [B, S, C] to [B, L, D], as `Attention` does."""
        projected = (self.to_q(x), self.to_k(context), self.to_v(context))
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in projected)  # [B, H, L, D/H]
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1)
        self.received = weights.float().mean(1).sum(1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def self_attentions(unet: UNet) -> dict[str, TransformerBlock]:
    """The blocks with self-attention by their names, which are diffusers' too."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, TransformerBlock)}


def perturbed(unet: UNet, names: Iterable[str]) -> UNet:
    """A second UNet in which the self-attention of the blocks with these names is the identity."""
    second = twin(unet)
    blocks = self_attentions(second)
    for name in names:
        blocks[name].attn1 = IdentityAttention(blocks[name].attn1)  # type: ignore[assignment]
    return second


def watched(unet: UNet) -> tuple[UNet, WatchedAttention]:
    """A second UNet, and the attention of the first block at its lowest resolution, whose weights can be read there.

    Raises ValueError if there is none.
    """
    name = next((name for name in self_attentions(unet) if name.startswith("mid_block.")), None)
    if name is None:
        raise ValueError("the UNet has no self-attention at its lowest resolution")
    second = twin(unet)
    block = self_attentions(second)[name]
    seen = WatchedAttention(block.attn1)
    block.attn1 = seen  # type: ignore[assignment]
    return second, seen
