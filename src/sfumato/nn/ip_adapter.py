"""IP-Adapter: a picture as tokens beside the words, with keys and values of its own. Ye et al. 2023.

Attribute names are those of the published files (`image_proj`, `ip_adapter`), which diffusers reads too.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.nn.attention import attend
from sfumato.nn.clip_vision import ImageEncoder, VisionStates

Form = Literal["plain", "plus", "full"]
"""What a picture becomes: a few tokens of its embedding; a few of all its parts; one token for each of its parts."""

HEAD = 64  # features of a head in a resampler; tencent-ailab/IP-Adapter: ip_adapter/resampler.py


@dataclass(frozen=True)
class IPAdapterConfig:
    """The sizes of an IP-Adapter, which its tensors' shapes show.

    `seen`: features of what it gets from the image encoder; `context`: those of the words; `tokens`: how many for a
    picture (full: one for each part); `widths`: of each cross-attention of its UNet, in the order of the files: the way
    down, the way up, the middle. `inner`, `layers` and `heads` are those of a resampler (plus).
    """

    form: Form
    seen: int
    context: int
    widths: tuple[int, ...]
    tokens: int = 4
    inner: int = 0
    layers: int = 0
    heads: int = 0


class PlainTokens(nn.Module):
    """Tokens of one vector for the whole picture."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.proj = nn.Linear(config.seen, config.tokens * config.context)
        self.norm = nn.LayerNorm(config.context)

    def forward(self, states: VisionStates) -> Tensor:
        """[B, n, C]."""
        return self.norm(self.proj(states.embedding).unflatten(1, (self.tokens, -1)))  # type: ignore[no-any-return]


class FullTokens(nn.Module):
    """A token for each part of a picture."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(config.seen, config.seen),
            nn.GELU(),
            nn.Linear(config.seen, config.context),
            nn.LayerNorm(config.context),
        )

    def forward(self, states: VisionStates) -> Tensor:
        """[B, L, C]."""
        return self.proj(states.hidden)  # type: ignore[no-any-return]


class ResamplerAttention(nn.Module):
    """Attention of a few tokens on the parts of a picture and on themselves. Alayrac et al. 2022 (Flamingo)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        inner = HEAD * heads
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, parts: Tensor, tokens: Tensor) -> Tensor:
        """Parts [B, L, D] and tokens [B, n, D] to [B, n, D]."""
        normed = self.norm2(tokens)
        key, value = self.to_kv(torch.cat([self.norm1(parts), normed], dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(normed), key, value, self.heads))  # type: ignore[no-any-return]


class Resampler(nn.Module):
    """A few tokens that look at all parts of a picture, layer by layer."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        width = config.inner
        self.latents = nn.Parameter(torch.zeros(1, config.tokens, width))
        self.proj_in = nn.Linear(config.seen, width)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    ResamplerAttention(width, config.heads),
                    nn.Sequential(
                        nn.LayerNorm(width),
                        nn.Linear(width, 4 * width, bias=False),
                        nn.GELU(),
                        nn.Linear(4 * width, width, bias=False),
                    ),
                ]
            )
            for _ in range(config.layers)
        )
        self.proj_out = nn.Linear(width, config.context)
        self.norm_out = nn.LayerNorm(config.context)

    def forward(self, states: VisionStates) -> Tensor:
        """[B, n, C]."""
        parts = self.proj_in(states.hidden)
        tokens = self.latents.expand(len(parts), -1, -1)
        for layer in self.layers:
            attention, perceptron = layer.children()
            tokens = attention(parts, tokens) + tokens
            tokens = perceptron(tokens) + tokens
        return self.norm_out(self.proj_out(tokens))  # type: ignore[no-any-return]


TOKENS: dict[Form, type[PlainTokens | FullTokens | Resampler]] = {
    "plain": PlainTokens,
    "full": FullTokens,
    "plus": Resampler,
}


class KeysAndValues(nn.Module):
    """The layers that make one cross-attention's keys and values of a picture's tokens."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context, width, bias=False)
        self.to_v_ip = nn.Linear(context, width, bias=False)


class IPAdapter(nn.Module):
    """Ye et al. 2023. Its layers are numbered 1, 3, 5, ... in the published files, as self-attentions count, too."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.image_proj = TOKENS[config.form](config)
        self.ip_adapter = nn.ModuleDict(
            {str(2 * place + 1): KeysAndValues(config.context, width) for place, width in enumerate(config.widths)}
        )

    def forward(self, states: VisionStates) -> Tensor:
        """What an image encoder makes of B pictures to their tokens, [B, n, C]."""
        return self.image_proj(states)  # type: ignore[no-any-return]


class Prompter(nn.Module):
    """An IP-Adapter and the image encoder that it was trained with, for a UNet with so many layers `ways`.

    `ways`: its cross-attentions on the way down and on the way up; the files have the middle last.
    """

    def __init__(self, adapter: IPAdapter, encoder: ImageEncoder, ways: tuple[int, int]) -> None:
        super().__init__()
        self.adapter = adapter
        self.encoder = encoder
        self.ways = ways

    @property
    def layers(self) -> tuple[KeysAndValues, ...]:
        """The adapter's layers in the order of the UNet's cross-attentions: down, middle, up."""
        found: list[KeysAndValues] = list(self.adapter.ip_adapter.values())  # type: ignore[arg-type]
        down, up = self.ways
        return (*found[:down], *found[down + up :], *found[down : down + up])

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures [N, 3, S, S] as the encoder sees them to their tokens together, [1, N x n, C]."""
        return self.adapter(self.encoder(pixels)).flatten(0, 1)[None]  # type: ignore[no-any-return]

    def nothing(self, pixels: Tensor) -> Tensor:
        """The tokens of as many pictures of nothing, for the branch of the negative prompt, [1, N x n, C].

        As trained, by leaving out: of a zero embedding, or of all that the encoder makes of zeros.
        """
        if self.adapter.config.form != "plain":
            return self(torch.zeros_like(pixels))  # type: ignore[no-any-return]
        states = VisionStates(pixels.new_zeros(0), pixels.new_zeros(len(pixels), self.adapter.config.seen))
        return self.adapter(states).flatten(0, 1)[None]  # type: ignore[no-any-return]
