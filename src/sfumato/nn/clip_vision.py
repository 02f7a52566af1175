"""CLIP's vision towers: ViT-H/14 and ViT-bigG/14 of OpenCLIP (IP-Adapters), ViT-L/14 of OpenAI."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sfumato.nn.clip import ACTIVATIONS, HARMLESS, Encoder
from sfumato.nn.config import Options, check_values, known_options, unsupported

FIXED: dict[str, tuple[object, ...]] = {
    "attention_dropout": (0,),
    "dropout": (0,),
    "num_channels": (3,),
    "model_type": ("clip_vision_model",),
}
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    "projection_dim",
)  # fmt: skip
KINDS = (["CLIPVisionModelWithProjection"], ["CLIPVisionModel"])


@dataclass(frozen=True)
class VisionConfig:
    """What an image encoder's `config.json` says, under transformers' names; the defaults are ViT-H/14's.

    `image_size` is the side of the square that it sees, in pixels, `patch_size` that of the parts it is cut into.
    """

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 1024

    def __post_init__(self) -> None:
        check_values(self, SIZES)
        if self.hidden_act not in ACTIVATIONS:
            raise unsupported("VisionConfig", "hidden_act", self.hidden_act, " or ".join(ACTIVATIONS))
        for option, whole in (("num_attention_heads", self.hidden_size), ("patch_size", self.image_size)):
            if whole % getattr(self, option):
                raise unsupported("VisionConfig", option, getattr(self, option), f"divisors of {whole}")

    @property
    def tokens(self) -> int:
        """The parts of a picture, and one for the whole."""
        return 1 + (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_json(cls, data: Options) -> "VisionConfig":
        """The config that an image encoder's `config.json` states. Raises ConfigError for what we cannot honour."""
        architectures = data.get("architectures") or KINDS[0]
        if architectures not in KINDS:
            raise unsupported("VisionConfig", "architectures", architectures, " or ".join(kind for (kind,) in KINDS))
        return cls(**known_options(cls, data, fixed=FIXED, harmless=HARMLESS, required=("hidden_size",)))

    def to_json(self) -> dict[str, object]:
        """The same as transformers writes it, so that transformers can read it."""
        stated = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"architectures": KINDS[0], "model_type": "clip_vision_model", **stated}


VIT_H = VisionConfig()  # laion/CLIP-ViT-H-14-laion2B-s32B-b79K
VIT_BIGG = VisionConfig(  # laion/CLIP-ViT-bigG-14-laion2B-39B-b160k
    hidden_size=1664, intermediate_size=8192, num_hidden_layers=48, projection_dim=1280
)
VIT_L = VisionConfig(  # openai/clip-vit-large-patch14
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, hidden_act="quick_gelu", projection_dim=768
)
PUBLISHED: Sequence[VisionConfig] = (VIT_H, VIT_BIGG, VIT_L)


@dataclass(frozen=True)
class VisionStates:
    """What a vision tower makes of pictures: `hidden`, the state before the last layer [B, L, D], without a norm, and
    `embedding`, the whole picture in one vector [B, P].
    """

    hidden: Tensor
    embedding: Tensor


class PictureEmbeddings(nn.Module):
    """A vector for each part of a picture and one for the whole, with their places."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size, bias=False)
        self.position_embedding = nn.Embedding(config.tokens, config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, L, D]."""
        parts = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat([whole, parts], dim=1) + self.position_embedding.weight


class VisionTransformer(nn.Module):
    """Embeddings, layers and norms, under the names that transformers gives them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = PictureEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # sic
        self.encoder = Encoder(config, causal=False)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class ImageEncoder(nn.Module):
    """CLIP's vision transformer with its projection. Radford et al. 2021."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTransformer(config)
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, pixels: Tensor) -> VisionStates:
        """Pictures [B, 3, S, S], normalised as `sfumato.images.clip_pixels` does, to their states."""
        side = self.config.image_size
        if pixels.shape[2:] != (side, side):
            raise ValueError(f"pictures are {tuple(pixels.shape[2:])}; this image encoder sees {side}x{side}")
        model = self.vision_model
        states = model.encoder(model.pre_layrnorm(model.embeddings(pixels)))
        return VisionStates(states[-2], self.visual_projection(model.post_layernorm(states[-1][:, 0])))
