"""Tiny random text encoders on CLIP's vocabulary, as transformers' and as ours."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Tower:
    """A text encoder of transformers and the same one of ours, each with its tokenizer."""

    reference: CLIPTextModel | CLIPTextModelWithProjection
    reference_tokenizer: CLIPTokenizer
    encoder: TextEncoder
    tokenizer: Tokenizer


def tower(folder: Path, *, pad: str, act: str, width: int, layers: int, projection: int | None, seed: int) -> Tower:
    """Random weights with a spread that makes layers differ clearly."""
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        hidden_act=act,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
        projection_dim=projection or width,
    )
    kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    reference = kind(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            spread = 0.3 if parameter.ndim == 2 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    reference.save_pretrained(folder)
    ours = TextEncoder(TextEncoderConfig.from_json(json.loads((folder / "config.json").read_text())))
    prefixed = {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": value
        for name, value in reference.state_dict().items()
        if not name.endswith("position_ids")
    }
    ours.load_state_dict(prefixed, strict=True)
    reference_tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    return Tower(reference, reference_tokenizer, ours.eval(), Tokenizer.from_folder(folder))


def make_towers(clip: Tokenizer, folder_of: Callable[[str], Path]) -> dict[str, Tower]:
    """SD 1.x' tower, SD 2.x' (all layers), and bigG's, each from a new folder."""
    made = {}
    for name, options in {
        "vit_l": {"pad": "<|endoftext|>", "act": "quick_gelu", "width": 32, "layers": 3, "projection": None, "seed": 1},
        "vit_h": {"pad": "!", "act": "gelu", "width": 32, "layers": 4, "projection": None, "seed": 2},
        "bigg": {"pad": "!", "act": "gelu", "width": 64, "layers": 4, "projection": 48, "seed": 3},
    }.items():
        folder = folder_of(name)
        clip.save(folder)
        (folder / "tokenizer_config.json").unlink()
        made[name] = tower(folder, **options)  # type: ignore[arg-type]
    return made
