"""What adapters' files call their tensors: five dialects for the same things, such as a layer's down, up and alpha.

    kohya          lora_unet_down_blocks_0_..._attn1_to_q.lora_down.weight, lora_te_..., SDXL: lora_te1_, lora_te2_
    diffusers      unet.down_blocks.0....attn1.to_q.lora.down.weight, text_encoder....lora_linear_layer.down.weight
    peft           unet.down_blocks.0....attn1.to_q.lora_A.weight, or base_model.model.down_blocks.0...., B for up
    diffusers-old  down_blocks.0....attn1.processor.to_q_lora.down.weight
    comfyui        diffusion_model.input_blocks.1.1....attn1.to_q.lora_down.weight, text_encoders.clip_l.transformer....

LyCORIS' kinds have kohya's names with other ends, .hada_w1_a, or peft's. kohya's OFT begins with oft_unet_, what
SimpleTuner trains with LyCORIS with lycoris_, and OneTrainer may write kohya's names with the path's own dots.

In kohya's names underscores stand for the dots of a path. They are told apart from a name's own underscores by the
names that layers can have, so that no network is needed to read a file. SDXL's UNet also has latent-diffusion's names
there, input_blocks_4_1_...: what they mean depends on the network (`ldm_paths`).
https://github.com/kohya-ss/sd-scripts: networks/lora.py; https://github.com/huggingface/diffusers:
src/diffusers/utils/state_dict_utils.py; https://github.com/comfyanonymous/ComfyUI: comfy/lora.py, model_lora_keys_unet
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sfumato.nn.unet import UNetConfig
from sfumato.weights.ldm import unet_naming

Dialect = Literal["kohya", "diffusers", "peft", "diffusers-old", "comfyui"]

UNET, TEXT, TEXT_2 = "unet", "text_encoder", "text_encoder_2"  # as in a diffusers folder
WORDS = {
    UNET: "down_blocks up_blocks mid_block attentions resnets downsamplers upsamplers transformer_blocks attn1 attn2"
    " to_q to_k to_v to_out ff net proj proj_in proj_out conv conv1 conv2 conv_in conv_out conv_shortcut time_emb_proj"
    " time_embedding add_embedding linear_1 linear_2 norm norm1 norm2 norm3 conv_norm_out",
    TEXT: "text_model encoder layers self_attn q_proj k_proj v_proj out_proj mlp fc1 fc2 text_projection"
    " layer_norm1 layer_norm2 final_layer_norm",
}
STEPS = {
    network: re.compile(rf"({'|'.join(sorted(words.split(), key=len, reverse=True))}|\d+)(?:_|$)")
    for network, words in WORDS.items()
}
KOHYA = re.compile(r"(?:(?:lora|oft)_(unet|te|te1|te2)|lycoris)_([^.]+)\.(.+)")
LYCORIS = "hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 hada_t2 lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a"
LYCORIS += " lokr_w2_b lokr_t2 oft_blocks rescale on_input diff diff_b w_norm b_norm dora_scale"
KOHYA_ENDS = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "alpha": "alpha",
    "weight": "factors",  # of an (IA)^3
    "oft_diag": "oft_blocks",  # as LyCORIS called them first
    **{f"{name}.weight": name for name in ("a1", "a2", "b1", "b2")},  # of a GLoRA
    **{name: name for name in LYCORIS.split()},
}
KOHYA_NETWORKS = {"unet": UNET, "te": TEXT, "te1": TEXT, "te2": TEXT_2}
DOTTED = re.compile(
    r"(?P<path>[^\s]+?)(?:"
    r"\.lora_(?P<peft>[AB])(?:\.\w+)?\.weight|"
    r"\.lora_(?P<kohya>down|up|mid)\.weight|"
    r"\.lora(?:_linear_layer)?\.(?P<new>down|up)\.weight|"
    r"_lora\.(?P<old>down|up)\.weight|"
    r"\.lora_(?P<magnitude>magnitude)_vector(?:\.\w+){0,2}|"
    r"\.(?P<rotation>oft_R|boft_R|boft_s)(?:\.\w+){0,2}|"
    rf"\.(?P<other>ia3_l|{LYCORIS.replace(' ', '|')})(?:\.\w+)?|"
    r"\.(?P<alpha>alpha))"
)
# What a path with dots begins with, and whose layer it then is.
PREFIXES = {
    "unet": UNET,
    "text_encoder": TEXT,
    "text_encoder_2": TEXT_2,
    "lora_unet": UNET,
    "lora_te": TEXT,
    "lora_te1": TEXT,
    "lora_te2": TEXT_2,
    **{f"{start}clip_{tower}.transformer": TEXT for start in ("", "text_encoders.") for tower in "lh"},
    **{f"{start}clip_g.transformer": TEXT_2 for start in ("", "text_encoders.")},
}
PREFIX = re.compile(rf"({'|'.join(map(re.escape, PREFIXES))})\.")
LDM = "diffusion_model."  # before latent-diffusion's names of a UNet's layers
ROLES = {"A": "down", "down": "down", "B": "up", "up": "up", "alpha": "alpha"}
PURE = "base_model.model."  # before a path in an adapter of peft's own
OLD_UNET = {"to_out": "to_out.0"}
OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
WIDE_TOWER = 1280  # features of SDXL's second text encoder; no published first one is as wide


@dataclass(frozen=True)
class Key:
    """A tensor's name, understood: whose layer, by its path, and what of it.

    `told`: whether the name says the network; an adapter of peft's own does not say which text encoder it is for.
    `ldm`: the path is in latent-diffusion's names, with underscores.
    """

    dialect: Dialect
    network: str
    path: str
    role: str
    told: bool = True
    ldm: bool = False


def parse(name: str) -> Key | None:
    """Return what a tensor's name means, or None if it is none of a LoRA's."""
    return parse_kohya(name) or parse_dotted(name)


def parse_kohya(name: str) -> Key | None:
    """Return what a name of kohya's means: exactly two dots at most, the first after the layer."""
    found = KOHYA.fullmatch(name)
    role = None if found is None else KOHYA_ENDS.get(found[3])
    if found is None or role is None:
        return None
    network, flat = KOHYA_NETWORKS[found[1] or "unet"], found[2]
    path = unflatten(flat, network)
    if path is not None:
        return Key("kohya", network, whole(path, network), role)
    return Key("kohya", network, flat, role, ldm=True) if network == UNET else None


def parse_dotted(name: str) -> Key | None:
    """Return what a name with a path's own dots means."""
    found = DOTTED.fullmatch(name)
    if found is None:
        return None
    plain = found["new"] or found["alpha"]
    which = found["peft"] or found["kohya"] or found["old"] or plain
    which = which or found["magnitude"] or found["rotation"] or found["other"]
    role = ROLES.get(which, which)
    path, told = found["path"].removeprefix(PURE), True
    if path.startswith(LDM):
        return Key("comfyui", UNET, path.removeprefix(LDM).replace(".", "_"), role, ldm=True)
    start = PREFIX.match(path)
    if start is not None:
        network, path = PREFIXES[start[1]], path[start.end() :]
    else:
        network, told = (TEXT if path.startswith(("text_model.", "encoder.layers.")) else UNET), False
    path = path.replace(".processor.", ".")
    if found["old"]:
        parent, _, last = path.rpartition(".")
        table = OLD_UNET if network == UNET else OLD_TEXT
        path = f"{parent}.{table.get(last, last)}"
    path = whole(path, network)
    if unflatten(path.replace(".", "_"), network) != path:
        return None
    dialect: Dialect = "diffusers-old" if found["old"] else "diffusers" if plain else "peft"
    if start is not None and start[1].startswith(("clip_", "text_encoders.")):
        dialect = "comfyui"
    elif found["kohya"]:
        dialect = "kohya"
    return Key(dialect, network, path, role, told)


def whole(path: str, network: str) -> str:
    """Return a layer's path with the `text_model.` that transformers 5 leaves out of one of its classes."""
    return f"text_model.{path}" if network != UNET and path.startswith("encoder.") else path


def unflatten(flat: str, network: str) -> str | None:
    """Return the path of a layer that is written with underscores for dots; None if no layer is called so."""
    step, parts, place = STEPS[UNET if network == UNET else TEXT], [], 0
    while place < len(flat):
        found = step.match(flat, place)
        if found is None:
            return None
        parts.append(found[1])
        place = found.end()
    return ".".join(parts) if parts and not flat.endswith("_") else None


def ldm_paths(config: UNetConfig, paths: Iterable[str]) -> dict[str, str]:
    """Return the paths of a UNet's layers by latent-diffusion's names for them, with underscores for dots."""
    weights = [f"{path}.weight" for path in paths]
    return {
        rule.theirs.removesuffix(".weight").replace(".", "_"): rule.ours[0].removesuffix(".weight")
        for rule in unet_naming(config, weights)
    }


def kohya_name(network: str, path: str, *, towers: int, ldm: Mapping[str, str] | None = None) -> str:
    """Return kohya's name of a layer. `towers`: the model's text encoders; `ldm`: path -> latent-diffusion's name."""
    prefix = {UNET: "unet", TEXT: "te" if towers == 1 else "te1", TEXT_2: "te2"}[network]
    return f"lora_{prefix}_{(ldm or {}).get(path, path.replace('.', '_'))}"


def dotted_name(network: str, path: str, dialect: Dialect) -> tuple[str, str]:
    """Return the names of a layer's down and up tensors in the dialects "diffusers" and "peft"."""
    if dialect == "peft":
        return f"{network}.{path}.lora_A.weight", f"{network}.{path}.lora_B.weight"
    kind = "lora" if network == UNET else "lora_linear_layer"
    return f"{network}.{path}.{kind}.down.weight", f"{network}.{path}.{kind}.up.weight"
