"""The names of CompVis' latent-diffusion, which single files use for the UNet and the autoencoder.

Each map is generated from the network's configuration: a module of ours and the module of theirs, then the endings
within a resnet block. Whatever is left of a name is the same on both sides.
https://github.com/CompVis/latent-diffusion: ldm/modules/diffusionmodules/{openaimodel,model}.py
"""

from collections.abc import Iterable, Mapping

from sfumato.nn.autoencoder import AutoencoderConfig
from sfumato.nn.unet import UNetConfig
from sfumato.weights.naming import Naming, Rule

UNET_PREFIX = "model.diffusion_model."
AUTOENCODER_PREFIX = "first_stage_model."
EMA_PREFIX = "model_ema."

Modules = list[tuple[str, str]]

UNET_EDGES: Modules = [
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("time_embedding.cond_proj.", "time_embed.cond_proj."),  # LCM's; no program has published it in this layout
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
]
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
AUTOENCODER_RESNET = {"conv_shortcut": "nin_shortcut"}
AUTOENCODER_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
# diffusers' own names for the same before 0.17; sd-vae-ft-mse was published with them.
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def unet_modules(config: UNetConfig) -> Modules:
    """List the UNet's modules, ours and theirs. Theirs count input and output blocks through all levels."""
    layers = config.layers_per_block
    depths = layers if isinstance(layers, tuple) else (layers,) * config.levels
    modules = list(UNET_EDGES)
    block = 1
    for level, kind in enumerate(config.down_block_types):
        for layer in range(depths[level]):
            modules.append((f"down_blocks.{level}.resnets.{layer}.", f"input_blocks.{block}.0."))
            if kind.startswith("CrossAttn"):
                modules.append((f"down_blocks.{level}.attentions.{layer}.", f"input_blocks.{block}.1."))
            block += 1
        if level < config.levels - 1:
            modules.append((f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{block}.0.op."))
            block += 1
    block = 0
    for level, kind in enumerate(config.up_block_types):
        attends = kind.startswith("CrossAttn")
        for layer in range(depths[::-1][level] + 1):
            modules.append((f"up_blocks.{level}.resnets.{layer}.", f"output_blocks.{block}.0."))
            if attends:
                modules.append((f"up_blocks.{level}.attentions.{layer}.", f"output_blocks.{block}.1."))
            block += 1
        if level < config.levels - 1:
            upsampler = f"output_blocks.{block - 1}.{2 if attends else 1}.conv."
            modules.append((f"up_blocks.{level}.upsamplers.0.conv.", upsampler))
    return modules


def autoencoder_modules(config: AutoencoderConfig) -> Modules:
    """List the autoencoder's modules, ours and theirs. They count the decoder's levels from the highest resolution."""
    levels = len(config.block_out_channels)
    modules: Modules = []
    for half in ("encoder", "decoder"):
        modules += [(f"{half}.conv_norm_out.", f"{half}.norm_out.")]
        modules += [(f"{half}.mid_block.resnets.{i}.", f"{half}.mid.block_{i + 1}.") for i in range(2)]
        modules += [(f"{half}.mid_block.attentions.0.", f"{half}.mid.attn_1.")]
    for level in range(levels):
        for layer in range(config.layers_per_block):
            modules.append((f"encoder.down_blocks.{level}.resnets.{layer}.", f"encoder.down.{level}.block.{layer}."))
        modules.append((f"encoder.down_blocks.{level}.downsamplers.0.", f"encoder.down.{level}.downsample."))
        theirs = levels - 1 - level
        for layer in range(config.layers_per_block + 1):
            modules.append((f"decoder.up_blocks.{level}.resnets.{layer}.", f"decoder.up.{theirs}.block.{layer}."))
        modules.append((f"decoder.up_blocks.{level}.upsamplers.0.", f"decoder.up.{theirs}.upsample."))
    return modules


def unet_naming(config: UNetConfig, names: Iterable[str]) -> Naming:
    """Return the rules for the UNet's tensors `names`, without the prefix of a single file."""
    modules = dict(unet_modules(config))
    return tuple(Rule(translate(name, modules, {".resnets.": UNET_RESNET}), (name,)) for name in names)


def autoencoder_naming(config: AutoencoderConfig, names: Iterable[str]) -> Naming:
    """Return the rules for the autoencoder's tensors `names`, without the prefix of a single file.

    The attention's projections are 1x1 convolutions there and matrices here.
    """
    modules = dict(autoencoder_modules(config))
    endings = {".resnets.": AUTOENCODER_RESNET, ".attentions.": AUTOENCODER_ATTENTION}
    return tuple(
        Rule(translate(name, modules, endings), (name,), "matrix" if is_projection(name) else "same") for name in names
    )


def old_autoencoder_naming(names: Iterable[str]) -> Naming:
    """Return the rules for an autoencoder in diffusers' format from before its attention was renamed."""
    return tuple(
        Rule(rename(name, OLD_ATTENTION) if ".attentions." in name else name, (name,), "same") for name in names
    )


def is_projection(name: str) -> bool:
    """Say whether a tensor of the autoencoder is the matrix of an attention projection."""
    return ".attentions." in name and ".to_" in name and name.endswith(".weight")


def translate(name: str, modules: Mapping[str, str], endings: Mapping[str, Mapping[str, str]]) -> str:
    """Translate one name: the module that it starts with, then the ending within modules of its kind."""
    for cut in (place for place, letter in enumerate(name, 1) if letter == "."):
        ours, rest = name[:cut], name[cut:]
        if ours in modules:
            for kind, table in endings.items():
                if kind in ours:
                    rest = rename(rest, table)
            return modules[ours] + rest
    return name


def rename(name: str, table: Mapping[str, str]) -> str:
    """Replace the first module name of the table that occurs in `name` as a whole."""
    for ours, theirs in table.items():
        padded = f".{name}."
        if f".{ours}." in padded:
            return padded.replace(f".{ours}.", f".{theirs}.", 1)[1:-1]
    return name


def ema_name(name: str) -> str:
    """Return the name that the averaged copy of a single file's tensor has: no dots after the prefix."""
    return EMA_PREFIX + name.removeprefix("model.").replace(".", "")
