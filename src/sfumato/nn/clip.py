"""CLIP's text encoders: ViT-L/14 (SD 1.x), OpenCLIP ViT-H/14 (SD 2.x) and, with projection, ViT-bigG/14 (SDXL)."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.config import Options, check_values, known_options, unsupported

FIXED: dict[str, tuple[object, ...]] = {"attention_dropout": (0,), "dropout": (0,), "model_type": ("clip_text_model",)}
# Initialisation, labels, outputs that transformers can switch on, and what its writer adds: not the mathematics.
HARMLESS = (
    "architectures", "dtype", "torch_dtype", "transformers_version", "initializer_factor", "initializer_range",
    "return_dict", "use_cache", "tie_word_embeddings", "output_attentions", "output_hidden_states", "id2label",
    "label2id", "problem_type", "chunk_size_feed_forward", "is_encoder_decoder",
)  # fmt: skip
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "projection_dim",
)  # fmt: skip
LEGACY_END = 2  # what configs said before transformers 4.31, whatever the vocabulary: the end is the highest id


def quick_gelu(x: Tensor) -> Tensor:
    """The approximation of GELU that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class TextEncoderConfig:
    """What `text_encoder/config.json` says, under transformers' names, and whether there is a projection."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407
    pad_token_id: int | None = 1
    with_projection: bool = False

    def __post_init__(self) -> None:
        check_values(self, SIZES)
        if self.hidden_act not in ACTIVATIONS:
            raise unsupported("TextEncoderConfig", "hidden_act", self.hidden_act, " or ".join(ACTIVATIONS))
        if self.hidden_size % self.num_attention_heads:
            raise unsupported(
                "TextEncoderConfig", "num_attention_heads", self.num_attention_heads, f"divisors of {self.hidden_size}"
            )

    @classmethod
    def from_json(cls, data: Options) -> "TextEncoderConfig":
        """The config that `text_encoder/config.json` states. Raises ConfigError naming what we cannot honour.

        `architectures` tells whether there is a projection.
        """
        given = known_options(cls, data, fixed=FIXED, harmless=HARMLESS, required=("hidden_size",))
        architectures = data.get("architectures") or ["CLIPTextModel"]
        if architectures not in (["CLIPTextModel"], ["CLIPTextModelWithProjection"]):
            raise unsupported(
                "TextEncoderConfig", "architectures", architectures, "CLIPTextModel or CLIPTextModelWithProjection"
            )
        return cls(**{"with_projection": architectures == ["CLIPTextModelWithProjection"], **given})

    def to_json(self) -> dict[str, object]:
        """The same as transformers writes it, so that transformers can read it."""
        stated = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "with_projection"}
        name = "CLIPTextModelWithProjection" if self.with_projection else "CLIPTextModel"
        return {"architectures": [name], "model_type": "clip_text_model", **stated}


@dataclass(frozen=True)
class TextStates:
    """What a text encoder makes of a prompt.

    `hidden`: the embeddings, then the state after each layer, [B, L, D], without the final norm; `last`: the state
    after the last layer with the final norm; `pooled`: `last` at the end token, through the projection if there is
    one, [B, D] or [B, P].
    """

    hidden: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor


class Embeddings(nn.Module):
    """Token and position embeddings."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """[B, L] to [B, L, D]."""
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]  # type: ignore[no-any-return]


class LayerConfig(Protocol):
    """What a layer of either tower is made from."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def layer_norm_eps(self) -> float: ...


class SelfAttention(nn.Module):
    """Multi-headed self-attention; causal for words, not for the parts of a picture."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (p.view(*p.shape[:2], self.heads, -1).transpose(1, 2) for p in projected)  # [B, H, L, D/H]
        if seen is not None:
            seen = seen[:, None, None, :] & seen.new_ones(x.shape[1], x.shape[1]).tril()  # [B, 1, L, L]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=self.causal and seen is None)
        return self.out_proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    """Two linear layers and an activation."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Self-attention and a perceptron, each normalised before and added."""

    def __init__(self, config: LayerConfig, *, causal: bool) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config.hidden_size, config.num_attention_heads, causal=causal)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Perceptron(config)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), seen)
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: LayerConfig, *, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, causal=causal) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, L, D] to itself and the state after each layer."""
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], seen))
        return tuple(states)


class TextTransformer(nn.Module):
    """Embeddings, layers and the final norm, under the name that transformers gives them."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config, causal=True)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, seen: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, L] to the embeddings and the state after each layer, without the final norm."""
        return self.encoder(self.embeddings(ids), seen)  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """CLIP's text transformer. Radford et al. 2021."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config)
        self.text_projection = (
            nn.Linear(config.hidden_size, config.projection_dim, bias=False) if config.with_projection else None
        )

    def forward(self, ids: Tensor, seen: Tensor | None = None) -> TextStates:
        """Token ids [B, L], with their end token, to all states. Raises ValueError when L is too long.

        `seen` [B, L] is False where no token looks at another, by default nowhere.
        """
        if ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"{ids.shape[1]} tokens; this text encoder takes at most {self.config.max_position_embeddings}"
            )
        hidden = self.text_model(ids, seen)
        last = self.final_norm(hidden[-1])
        pooled = last[torch.arange(len(ids), device=ids.device), self.end(ids)]
        return TextStates(hidden, last, pooled if self.text_projection is None else self.text_projection(pooled))

    def final_norm(self, x: Tensor) -> Tensor:
        """The final layer norm of any hidden state, [B, L, D]."""
        normed: Tensor = self.text_model.final_layer_norm(x)
        return normed

    def end(self, ids: Tensor) -> Tensor:
        """The place of the end token in each row of ids [B, L]: its first place, or 0 when it is missing."""
        if self.config.eos_token_id == LEGACY_END:
            return ids.argmax(dim=1)
        return ids.eq(self.config.eos_token_id).int().argmax(dim=1)
