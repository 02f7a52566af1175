"""A ControlNet's file: diffusers' names, or those of the original code (cldm), with their configuration.

A diffusers folder brings its configuration. A single file is read by that of the family that its shapes show, or by
that of the model that it is for. https://github.com/lllyasviel/ControlNet: cldm/cldm.py
"""

from dataclasses import fields, replace
from pathlib import Path

from sfumato.errors import WeightsError
from sfumato.nn.controlnet import ControlNet, ControlNetConfig
from sfumato.nn.controlnet_union import ControlNetUnion, ControlNetUnionConfig
from sfumato.nn.unet import UNetConfig
from sfumato.weights.build import Part, check_parts, shapes_of
from sfumato.weights.control_difference import mark_of
from sfumato.weights.control_lora import ControlLora, control_lora, whole_shapes
from sfumato.weights.families import BASES, FAMILIES, blueprint
from sfumato.weights.files import TensorFile
from sfumato.weights.ldm import UNET_RESNET, Modules, translate, unet_modules
from sfumato.weights.naming import Naming, Rule, identity, prefixed
from sfumato.weights.network_config import network_of
from sfumato.weights.opened import Component
from sfumato.weights.recognise import Shapes, context_width, first_layer

PREFIX = "control_model."  # of cldm's names, where the file has been a part of a whole checkpoint
HINT = "input_hint_block."  # of cldm's names
EMBEDDING = "controlnet_cond_embedding."  # of diffusers'


def is_controlnet(shapes: Shapes) -> bool:
    """Say whether the tensors are a ControlNet's, in either naming."""
    return any(prefix + name in shapes for prefix in (PREFIX, "") for name in (f"{HINT}0.weight",)) or (
        f"{EMBEDDING}conv_in.weight" in shapes
    )


def controlnet_base(shapes: Shapes) -> tuple[str | None, str]:
    """Return the family of the UNets that a ControlNet's tensors fit, None if it is no published one, and why."""
    prefix, original = naming_of(shapes)
    first = "input_blocks.0.0.weight" if original else "conv_in.weight"
    width = first_layer(shapes, prefix + first)[0] if prefix + first in shapes else 0
    context = context_width(shapes, prefix)
    reason = f"it starts with {width} features and attends to {context} text features"
    return BASES.get((width, context)), reason


def naming_of(shapes: Shapes) -> tuple[str, bool]:
    """Return the prefix of a ControlNet's tensors, and whether their names are cldm's."""
    if f"{PREFIX}{HINT}0.weight" in shapes:
        return PREFIX, True
    return "", f"{HINT}0.weight" in shapes


def controlnet_component(
    path: Path, tensors: TensorFile, config: ControlNetConfig | None, like: UNetConfig | None
) -> Component:
    """Compare a ControlNet's file with its configuration, which is `config` where a folder says it.

    Raises WeightsError if they differ, or there is no telling.
    """
    shapes = shapes_of(tensors)
    config = config or config_of(path, shapes, like)
    if isinstance(config, ControlNetUnionConfig):
        made = config
        network: ControlNet = network_of(lambda: ControlNetUnion(made), path)
    else:
        network = network_of(lambda: ControlNet(config), path)
    prefix, original = naming_of(shapes)
    names = list(network.state_dict())
    naming = prefixed(cldm_naming(config, names), prefix) if original else identity(names)
    known = {rule.theirs for rule in naming} | {mark_of(shapes)}
    part = Part("ControlNet", network, naming)
    check_parts(
        path, "this ControlNet", [part], tensors, (n for n in tensors if n.startswith(prefix) and n not in known)
    )
    return Component(part, tensors)


def control_lora_component(path: Path, tensors: TensorFile, like: UNetConfig | None) -> tuple[Component, ControlLora]:
    """Compare a Control-LoRA's file with the ControlNet that it makes of a UNet, whose configuration is `like`.

    Raises WeightsError if they differ, or there is no telling.
    """
    shapes = whole_shapes(shapes_of(tensors))
    config = config_of(path, shapes, like)
    network = network_of(lambda: ControlNet(config), path)
    naming = cldm_naming(config, list(network.state_dict()))
    return Component(Part("ControlNet", network, naming), tensors), control_lora(path, tensors, network, naming)


def config_of(path: Path, shapes: Shapes, like: UNetConfig | None) -> ControlNetConfig:
    """Return the configuration that a file's shapes show, or that of the model that it is for."""
    base, reason = controlnet_base(shapes)
    unet = like if base is None else blueprint(FAMILIES[base]).unet
    if unet is None:
        raise WeightsError(
            f"{path} is a ControlNet for no published family ({reason}); name the folder with its config."
        )
    prefix, original = naming_of(shapes)
    first = f"{prefix}{HINT}0.weight" if original else f"{EMBEDDING}conv_in.weight"
    steps = [
        f"{prefix}{HINT}{2 * place}.weight" if original else f"{EMBEDDING}blocks.{place - 1}.weight"
        for place in range(1, 40)
    ]
    convolutions = [name for name in steps if name in shapes]
    if original:
        convolutions = convolutions[:-1]  # the last is the one into the network's width
    widths = [first_layer(shapes, name)[0] for name in (first, *convolutions[1::2])]
    entry = prefix + ("input_blocks.0.0.weight" if original else "conv_in.weight")
    channels = first_layer(shapes, entry)[1] if entry in shapes else 0
    found = ControlNetConfig(
        replace(unet, in_channels=channels or unet.out_channels),
        conditioning_channels=first_layer(shapes, first)[1],
        conditioning_embedding_out_channels=tuple(widths),
        # no shape shows it; the one published model that does so is called control_v11e_sd15_shuffle
        global_pool_conditions="shuffle" in path.stem.lower(),
    )
    return union_config(found, shapes) if is_union(shapes) else found


def is_union(shapes: Shapes) -> bool:
    """Say whether a ControlNet's tensors are those of one for several kinds of pictures."""
    return "task_embedding" in shapes


def union_config(config: ControlNetConfig, shapes: Shapes) -> ControlNetUnionConfig:
    """Return the configuration of a ControlNet for several kinds of pictures; its heads are the published eight."""
    kinds, width = (*shapes["task_embedding"], 0, 0)[:2]
    layers = {name.split(".")[1] for name in shapes if name.startswith("transformer_layes.")}
    return ControlNetUnionConfig(
        **{each.name: getattr(config, each.name) for each in fields(ControlNetConfig)},
        num_control_type=kinds,
        num_trans_channel=width,
        num_trans_layer=len(layers),
        num_proj_channel=(*shapes.get("spatial_ch_projs.weight", ()), 0)[0],
    )


def cldm_naming(config: ControlNetConfig, names: list[str]) -> Naming:
    """Return the rules for a ControlNet's tensors `names` under cldm's names, without a prefix."""
    modules = dict(controlnet_modules(config))
    return tuple(Rule(translate(name, modules, {".resnets.": UNET_RESNET}), (name,)) for name in names)


def controlnet_modules(config: ControlNetConfig) -> Modules:
    """List a ControlNet's modules, ours and theirs."""
    hint = [("conv_in", 0)]
    blocks = 2 * (len(config.conditioning_embedding_out_channels) - 1)
    hint += [(f"blocks.{place}", 2 * (place + 1)) for place in range(blocks)] + [("conv_out", 2 * (blocks + 1))]
    skips = 1 + sum(layers + (level < config.unet.levels - 1) for level, layers in enumerate(layers_of(config.unet)))
    return [
        *unet_modules(config.unet),
        *((f"{EMBEDDING}{ours}.", f"{HINT}{theirs}.") for ours, theirs in hint),
        *((f"controlnet_down_blocks.{place}.", f"zero_convs.{place}.0.") for place in range(skips)),
        ("controlnet_mid_block.", "middle_block_out.0."),
    ]


def layers_of(config: UNetConfig) -> tuple[int, ...]:
    """Return the resnet blocks of each level on the way down."""
    layers = config.layers_per_block
    return layers if isinstance(layers, tuple) else (layers,) * config.levels
