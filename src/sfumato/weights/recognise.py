"""What a set of tensors is, told from names and shapes alone: a checkpoint of a family, or something else by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sfumato.model import Family
from sfumato.weights.families import BASES, FAMILIES, INPAINTING_CHANNELS, INSTRUCTED_CHANNELS, OTHER_INPUTS
from sfumato.weights.ldm import AUTOENCODER_PREFIX, UNET_PREFIX
from sfumato.weights.openclip import (
    CLIP_PREFIX,
    OPENCLIP_PREFIX,
    REFINER_PREFIX,
    SDXL_CLIP_PREFIX,
    SDXL_OPENCLIP_PREFIX,
)

Shapes = Mapping[str, tuple[int, ...]]

TEXT_PREFIXES = {
    "clip": (CLIP_PREFIX,),
    "openclip": (OPENCLIP_PREFIX,),
    "sdxl": (SDXL_CLIP_PREFIX, SDXL_OPENCLIP_PREFIX),
    "sdxl-refiner": (REFINER_PREFIX,),
}
ITS_AUTOENCODER = "its autoencoder"
LORA = "a LoRA"
HYPERNETWORK = re.compile(r"(320|640|768|1024|1280)\.[01]\.")  # layers for keys and values, by the width of the text
FOREIGN_LORA = "an adapter for another network than Stable Diffusion's (Flux, SD 3, a motion module or alike)"
# Of adapters' names: how those of other networks begin, and what else only they have.
FOREIGN_STARTS: tuple[str, ...] = (
    "transformer.",
    "lora_transformer_",
    "lycoris_transformer_blocks",
    "lycoris_single_",
    "lora_prior_",
    "diffusion_model.blocks.",
    "diffusion_model.layers.",
    "lora_unet_blocks_",
    "lora_unet_layers_",
)
FOREIGN_PARTS = ("double_blocks", "single_blocks", "joint_blocks", "single_transformer_blocks", "motion_modules")
# Parts of a tensor's name that only one kind of file has, most telling first.
TELLTALES = (
    (("ip_adapter.", "image_proj."), "an IP-Adapter"),  # FaceID's has LoRAs in it
    (("lllite_unet",), "an LLLite, kohya's small kind of ControlNet"),
    (("lora_down", "lora_up", ".lora_A.", ".lora_B.", ".lora.down.", "_lora.down."), LORA),
    (("hada_w1_a", "lokr_w1", "lokr_w2", "oft_blocks", "oft_diag", "dora_scale", ".oft_R", ".ia3_l"), LORA),
    (("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_"), LORA),
    (("motion_modules",), "an AnimateDiff motion module, or a network with some"),
    (("control_model.", "input_hint_block", "controlnet_cond_embedding"), "a ControlNet"),
    (("adapter.body.", "body.0.resnets.0.block1"), "a T2I-Adapter"),
    (("string_to_param", "emb_params", "emp_params"), "a textual inversion embedding"),
    (("edm_mean", "edm_vpred.", "edm_vpred"), "a model in EDM's parameterisation (Playground 2.5 and others)"),
    (("joint_blocks.",), "Stable Diffusion 3"),
    (("double_blocks.", "single_transformer_blocks."), "Flux or a model like it"),
    (("clip_txt_mapper", "channelwise."), "Stable Cascade"),
    (("double_layers.", "double_stream_blocks.", "cap_embedder.", "patchify_proj"), "a diffusion transformer"),
    (("id_encoder.",), "a PhotoMaker"),
    (("position_net.", "fuser.linear"), "a GLIGEN"),
    (("3.conv.0.weight", "decoder.layers.1.", "taesd"), "a tiny autoencoder (TAESD)"),
    (("vision_model.", "visual_projection"), "a CLIP with its vision tower"),
    (("conv_first.weight", "model.0.weight", "RDB1.conv1"), "an upscaler (ESRGAN or alike)"),
    (("lm_head.", "model.layers.0.", "block.0.layer.0.SelfAttention"), "a language model"),
)


# Of whole checkpoints: what their networks have beside a family's own layers.
ADDITIONS = (
    ("time_stack.", "Stable Video Diffusion"),
    ("cc_projection.", "Zero123"),
    ("edm_mean", "a model in EDM's parameterisation (Playground 2.5 and others)"),
    ("edm_vpred", "a model in EDM's parameterisation (Playground 2.5 and others)"),
    ("control_model.", "a model with a ControlNet in it"),
    ("scaled_fp8", "a model of 8-bit numbers with scales of their own"),
    (".scale_weight", "a model of 8-bit numbers with scales of their own"),
    (".absmax", "a model that bitsandbytes quantised"),
)


@dataclass(frozen=True)
class Recognised:
    """What the tensors are, in words; the family when it is a whole checkpoint of one; and what shows it.

    `almost`: the family of a checkpoint that lacks its autoencoder and nothing else.
    """

    what: str
    family: Family | None
    reason: str
    almost: Family | None = None


def recognise(shapes: Shapes) -> Recognised:
    """Tell what a file holds from its tensors' names and shapes."""
    if not shapes:
        return Recognised("a file without tensors", None, "it has none")
    if UNET_PREFIX + "input_blocks.0.0.weight" in shapes:
        return recognise_checkpoint(shapes)
    if "diffusion_model.input_blocks.0.0.weight" in shapes:
        return Recognised("a checkpoint whose names have lost their beginning, 'model.'", None, "they begin without it")
    for parts, what in TELLTALES:
        found = next((name for name in shapes if any(part in name for part in parts)), None)
        if found is not None:
            foreign = next((name for name in shapes if what == LORA and is_foreign(name)), None)
            return Recognised(FOREIGN_LORA if foreign else what, None, f"it has {foreign or found!r}")
    if all(HYPERNETWORK.match(name) for name in shapes):
        return Recognised("a hypernetwork", None, f"it has {next(iter(shapes))!r}")
    for test in (recognise_part, recognise_embedding):
        part = test(shapes)
        if part is not None:
            return part
    names = ", ".join(repr(name[:80]) for name in list(shapes)[:3])
    return Recognised("nothing that sfumato knows", None, f"{counted(len(shapes), 'tensor')}, first {names or 'none'}")


def is_foreign(name: str) -> bool:
    """Say whether an adapter's tensor is for a layer that only other networks have."""
    return name.startswith(FOREIGN_STARTS) or any(part in name for part in FOREIGN_PARTS)


def counted(count: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def recognise_checkpoint(shapes: Shapes) -> Recognised:
    """Tell which family a single file with a UNet belongs to, and which parts it lacks."""
    width, channels = first_layer(shapes, UNET_PREFIX + "input_blocks.0.0.weight")
    context = context_width(shapes, UNET_PREFIX)
    reason = f"its UNet starts with {width} features from {channels} channels and attends to {context} text features"
    base = BASES.get((width, context))
    for part, what in ADDITIONS:
        found = next((name for name in shapes if part in name), None)
        if found is not None:
            return Recognised(what, None, f"it has {found!r}")
    if base is None and channels in OTHER_INPUTS:
        return Recognised(OTHER_INPUTS[channels], None, reason)
    if base is None:
        return Recognised("a latent diffusion model of no published family", None, reason)
    title = FAMILIES[base].title
    if channels in OTHER_INPUTS:
        return Recognised(f"{OTHER_INPUTS[channels]} of {title}'s kind", None, reason)
    ending = {4: "", INPAINTING_CHANNELS: "-inpaint", INSTRUCTED_CHANNELS: "-instruct"}.get(channels)
    family = None if ending is None else FAMILIES.get(base + ending)
    if family is None:
        return Recognised(f"{title} with {channels} input channels", None, reason)
    missing = missing_parts(shapes, family)
    if missing:
        almost = family if missing == [ITS_AUTOENCODER] else None
        return Recognised(f"{family.title} without {' and '.join(missing)}", None, reason, almost)
    return Recognised(family.title, family, reason)


def missing_parts(shapes: Shapes, family: Family) -> list[str]:
    """Name the parts of a checkpoint of this family that are not in the file at all."""
    prefixes = {ITS_AUTOENCODER: (AUTOENCODER_PREFIX,), "its text encoder": TEXT_PREFIXES[family.text]}
    return [
        part
        for part, wanted in prefixes.items()
        if not all(any(name.startswith(prefix) for name in shapes) for prefix in wanted)
    ]


def recognise_part(shapes: Shapes) -> Recognised | None:
    """Tell whether the tensors are one part of a model."""
    for prefix in ("", AUTOENCODER_PREFIX, "vae."):
        name = prefix + "decoder.conv_in.weight"
        if name in shapes and prefix + "encoder.conv_in.weight" in shapes:
            _, channels = first_layer(shapes, name)
            return Recognised("a VAE only", None, f"it has an encoder and a decoder of {channels}-channel latents")
    if "conv_in.weight" in shapes and any(name.startswith("down_blocks.0.resnets.") for name in shapes):
        base = BASES.get((first_layer(shapes, "conv_in.weight")[0], context_width(shapes, "")))
        whose = f" of {FAMILIES[base].title}" if base else ""
        return Recognised(f"the UNet{whose} alone, out of a diffusers folder", None, "its names are diffusers'")
    if "input_blocks.0.0.weight" in shapes:
        return Recognised("a UNet alone, without a single file's prefix", None, "it has 'input_blocks.0.0.weight'")
    for name in shapes:
        if name.endswith(("embeddings.token_embedding.weight", "token_embedding.weight")):
            return Recognised("a CLIP text encoder only", None, f"it has {name!r}")
    return None


def recognise_embedding(shapes: Shapes) -> Recognised | None:
    """Tell whether the tensors are a textual inversion: a few vectors as wide as a text encoder."""
    widths = {768, 1024, 1280}
    if len(shapes) <= 2 and all(len(shape) in (1, 2) and shape[-1] in widths for shape in shapes.values()):
        return Recognised("a textual inversion embedding", None, f"it holds {len(shapes)} vectors or lists of vectors")
    return None


def first_layer(shapes: Shapes, name: str) -> tuple[int, int]:
    """Return output and input channels of a convolution; (0, 0) if it is none."""
    shape = shapes[name]
    return (shape[0], shape[1]) if len(shape) == 4 else (0, 0)


def context_width(shapes: Shapes, prefix: str) -> int:
    """Return the width of the text that a UNet attends to; 0 if none of its layers does."""
    ending = "transformer_blocks.0.attn2.to_k.weight"
    return next(
        (
            shape[1]
            for name, shape in shapes.items()
            if name.startswith(prefix) and name.endswith(ending) and len(shape) == 2
        ),
        0,
    )
