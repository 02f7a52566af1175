"""Control networks read for a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import nn

from sfumato.errors import WeightsError
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.ip_adapter import IPAdapter
from sfumato.nn.t2i_adapter import T2IAdapter
from sfumato.nn.unet import UNetConfig
from sfumato.weights.build import Placement, fill, shapes_of
from sfumato.weights.control_difference import fill_added, is_difference
from sfumato.weights.control_file import OpenedControl, locate_control, open_control, weights_of
from sfumato.weights.control_lora import is_control_lora
from sfumato.weights.files import open_file
from sfumato.weights.opened import Component

Filling = Callable[[Component, Model], None]
"""Gives an opened network beside a model its weights, in the model's precision."""

KEYS = ("block_out_channels", "layers_per_block", "cross_attention_dim", "addition_width")


def fill_for(component: Component, model: Model) -> None:
    """Read an opened network's weights, on the device and in the precision of the model."""
    fill(component.part, component.tensors, Placement(model.device, model.dtype))


def with_controls(
    model: Model, names: Sequence[str], known: Mapping[str, nn.Module] | None = None, filling: Filling = fill_for
) -> Model:
    """Return the model together with control networks, by these names; `known` are some that have been read for it.

    `filling` gives them their weights; those that are made of the UNet's have them where the UNet has its own.
    Raises ModelNotFoundError; ModelFileError for a file that cannot be read; WeightsError for one that is no control
    network, or one for another family.
    """
    networks = dict(model.controls)
    files = dict(model.files)
    for name in names:
        path = locate_control(name)
        found = (known or {}).get(name)
        networks[name] = read_control(model, path, filling) if found is None else found
        files[f"control {name}"] = open_file(weights_of(path)).paths
    return replace(model, controls=networks, files=files)


def control_file(name: str) -> Path:
    """Return the file of a control network's weights, or the index of its shards. Raises ModelNotFoundError."""
    return weights_of(locate_control(name))


def read_control(model: Model, path: Path, filling: Filling = fill_for) -> nn.Module:
    """Read a control network, on the device and in the precision of the model. Errors: `with_controls`."""
    opened = open_control(path, model.unet.config)
    check_fits(opened, model)
    network = opened.component.part.network
    if opened.low_rank is not None:
        opened.low_rank.fill(cast(ControlNet, network), model.unet)
    elif opened.added:
        fill_added(opened.component, model.unet)
    else:
        filling(opened.component, model)
    return network


def is_made_of_unet(name: str) -> bool:
    """Say whether a control network is made of the weights of the UNet that it steers, with the LoRAs in them.

    Errors are those of `with_controls`.
    """
    shapes = shapes_of(open_file(control_file(name)))
    return is_control_lora(shapes) or is_difference(shapes)


def check_fits(opened: OpenedControl, model: Model) -> None:
    """Raise WeightsError if a control network is for other UNets than the model's."""
    network = opened.component.part.network
    if isinstance(network, IPAdapter):
        raise WeightsError(f"{opened.path} is {opened.title}, not a control; give it as an image prompt.")
    if isinstance(network, ControlNet):
        wrong, stride = controlnet_misfit(network, model.unet.config), network.control.stride
    else:
        adapter = cast(T2IAdapter, network)
        wrong, stride = adapter_misfit(adapter, model.unet.config), adapter.config.downscale_factor
        stride = stride // 2 if adapter.config.adapter_type == "full_adapter_xl" else stride
    if not wrong and stride != model.stride:
        wrong = f"it has a cell for {stride} pixels and the model one for {model.stride}"
    if wrong:
        raise WeightsError(
            f"{opened.path} does not fit {model.name}, which is {model.family.title}: {wrong}. It looks like "
            f"{opened.title} ({opened.reason}). Use one of the model's family."
        )


def controlnet_misfit(network: ControlNet, unet: UNetConfig) -> str:
    """Say how a ControlNet does not go with a UNet; nothing if it does."""
    config = network.control.unet
    for key in KEYS:
        if getattr(config, key) != getattr(unet, key):
            return f"its {key} is {getattr(config, key)}, the model's {getattr(unet, key)}"
    if config.in_channels != unet.out_channels:
        return f"it sees {config.in_channels} channels of a latent that has {unet.out_channels}"
    return ""


def adapter_misfit(network: T2IAdapter, unet: UNetConfig) -> str:
    """Say how a T2I-Adapter does not go with a UNet; nothing if it does."""
    xl = network.config.adapter_type == "full_adapter_xl"
    levels = unet.block_out_channels
    wanted = (levels, (*levels, levels[-1])) if xl else (levels,)  # SDXL's may add to the lowest level, too
    if network.config.widths not in wanted:
        return f"it makes maps of {network.config.widths} features, for levels of {levels}"
    if xl != (not unet.down_block_types[0].startswith("CrossAttn")):
        return "SDXL's adapters halve where SD 1.x's do not"
    return ""
