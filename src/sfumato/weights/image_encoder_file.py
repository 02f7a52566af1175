"""A CLIP vision tower's folder or file, in transformers' names or OpenCLIP's, alone or in a whole CLIP."""

from collections.abc import Iterable
from math import isqrt
from pathlib import Path

from sfumato.errors import ModelFileError, WeightsError
from sfumato.nn.clip_vision import PUBLISHED, ImageEncoder, VisionConfig
from sfumato.weights.build import Part, check_parts, shapes_of
from sfumato.weights.component_files import TEXT_STEM, find_weights, variants, weight_files
from sfumato.weights.files import open_file, read_json
from sfumato.weights.naming import Naming, Rule, identity
from sfumato.weights.network_config import network_config, network_of
from sfumato.weights.openclip import LAYER
from sfumato.weights.opened import Component
from sfumato.weights.recognise import Shapes, first_layer, recognise

PREFIX = "visual."  # of OpenCLIP's names
EMBEDDINGS = "vision_model.embeddings."
EDGES = {
    f"{EMBEDDINGS}class_embedding": "class_embedding",
    f"{EMBEDDINGS}patch_embedding.weight": "conv1.weight",
    f"{EMBEDDINGS}position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm.weight": "ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "ln_pre.bias",
    "vision_model.post_layernorm.weight": "ln_post.weight",
    "vision_model.post_layernorm.bias": "ln_post.bias",
}


def is_image_encoder(shapes: Shapes) -> bool:
    """Say whether the tensors have a vision tower with a projection, in either naming."""
    return "visual_projection.weight" in shapes or f"{PREFIX}class_embedding" in shapes


def open_image_encoder(path: Path) -> Component:
    """Open a vision tower without reading a weight.

    Raises ModelFileError for what cannot be read, WeightsError for what is no vision tower, or half of one.
    """
    tensors = open_file(encoder_weights(path))
    shapes = shapes_of(tensors)
    if not is_image_encoder(shapes):
        looks = recognise(shapes)
        raise WeightsError(
            f"{path} is no image encoder: it looks like {looks.what} ({looks.reason}). Name a CLIP vision tower with "
            "its projection."
        )
    original = f"{PREFIX}class_embedding" in shapes
    stated = path / "config.json" if path.is_dir() else None
    if stated is not None and stated.is_file():
        config = network_config(VisionConfig.from_json, read_json(stated), stated)
    else:
        config = config_of(path, shapes, original=original)
    network = network_of(lambda: ImageEncoder(config), path)
    naming = openclip_vision_naming(config) if original else identity(list(network.state_dict()))
    known = {rule.theirs for rule in naming}
    mine = (PREFIX,) if original else ("vision_model.", "visual_projection.")
    extra = [name for name in tensors if name.startswith(mine) and name not in known and "position_ids" not in name]
    part = Part("image encoder", network, naming)
    check_parts(path, "this image encoder", [part], tensors, extra)
    return Component(part, tensors)


def encoder_weights(path: Path) -> Path:
    """Return the weights of a vision tower: the file itself, or the one in a folder, a variant if need be."""
    if not path.is_dir():
        return path
    there = variants(path, TEXT_STEM)
    if there:
        return find_weights(path, TEXT_STEM, None if "" in there else there[0])
    files = weight_files(path)
    if len(files) != 1:
        raise ModelFileError(f"{path}: has {len(files)} weight files; name the image encoder's.")
    return files[0]


def config_of(path: Path, shapes: Shapes, *, original: bool) -> VisionConfig:
    """Return the published configuration that the tensors' shapes show. Raises WeightsError if there is none."""
    names = {name: PREFIX + theirs for name, theirs in EDGES.items()} if original else {name: name for name in EDGES}
    cut, places = names[f"{EMBEDDINGS}patch_embedding.weight"], names[f"{EMBEDDINGS}position_embedding.weight"]
    if not {cut, places} <= set(shapes) or 0 in (*shapes[cut], *shapes[places]):
        raise WeightsError(f"{path}: an image encoder without {cut!r} or {places!r}; get the file again.")
    width, _ = first_layer(shapes, cut)
    side = isqrt(shapes[places][0] - 1) * shapes[cut][-1]
    found = next((each for each in PUBLISHED if each.hidden_size == width and each.image_size == side), None)
    if found is None:
        raise WeightsError(
            f"{path} is an image encoder of no published size ({width} features, pictures of {side} pixels); name the "
            "folder with its config."
        )
    return found


def openclip_vision_naming(config: VisionConfig) -> Naming:
    """Return the rules for a vision tower in OpenCLIP's layout."""
    rules = [Rule(PREFIX + theirs, (ours,)) for ours, theirs in EDGES.items()]
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"vision_model.encoder.layers.{layer}", f"{PREFIX}transformer.resblocks.{layer}"
        for part in ("weight", "bias"):
            rules += [Rule(f"{theirs}.{there}.{part}", (f"{ours}.{here}.{part}",)) for here, there in LAYER.items()]
            projections = tuple(f"{ours}.self_attn.{which}_proj.{part}" for which in "qkv")
            rules.append(Rule(f"{theirs}.attn.in_proj_{part}", projections, "stacked"))
    return (*rules, Rule(f"{PREFIX}proj", ("visual_projection.weight",), "transposed"))


def beside(adapter: Path) -> Iterable[Path]:
    """Yield the places where an IP-Adapter's image encoder lies, as published and as ComfyUI has it."""
    folder = adapter if adapter.is_dir() else adapter.parent
    for root in (folder, folder.parent):
        for name in ("image_encoder", "models/image_encoder", "sdxl_models/image_encoder"):
            if (root / name).is_dir():
                yield root / name
        if (root / "clip_vision").is_dir():
            yield from weight_files(root / "clip_vision")
