"""The names of a single file's text encoders: transformers' own for ViT-L, OpenCLIP's for ViT-H and ViT-bigG.

OpenCLIP keeps the projections of query, key and value in one matrix, and the text projection transposed.
https://github.com/mlfoundations/open_clip: src/open_clip/transformer.py
"""

from collections.abc import Iterable

from sfumato.nn.clip import TextEncoderConfig
from sfumato.weights.naming import Naming, Rule

CLIP_PREFIX = "cond_stage_model.transformer."  # SD 1.x
OPENCLIP_PREFIX = "cond_stage_model.model."  # SD 2.x
SDXL_CLIP_PREFIX = "conditioner.embedders.0.transformer."  # SDXL's first tower
SDXL_OPENCLIP_PREFIX = "conditioner.embedders.1.model."  # SDXL's second tower
REFINER_PREFIX = "conditioner.embedders.0.model."  # the refiner's only tower

EDGES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
PROJECTION = "text_projection.weight"


def openclip_naming(config: TextEncoderConfig) -> Naming:
    """Return the rules for a text encoder in OpenCLIP's layout, without the prefix of a single file."""
    rules = [Rule(theirs, (ours,)) for ours, theirs in EDGES.items()]
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"text_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for part in ("weight", "bias"):
            rules += [Rule(f"{theirs}.{there}.{part}", (f"{ours}.{here}.{part}",)) for here, there in LAYER.items()]
            projections = tuple(f"{ours}.self_attn.{which}_proj.{part}" for which in "qkv")
            rules.append(Rule(f"{theirs}.attn.in_proj_{part}", projections, "stacked"))
    if config.with_projection:
        rules.append(Rule("text_projection", (PROJECTION,), "transposed"))
    return tuple(rules)


def flat_naming(names: Iterable[str]) -> Naming:
    """Return the rules for a text encoder as transformers 5.6 and later write it: without `text_model.`."""
    return tuple(Rule(name.removeprefix("text_model."), (name,)) for name in names)
