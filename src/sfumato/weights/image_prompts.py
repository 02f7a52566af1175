"""IP-Adapters with their image encoders, read for a model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import nn

from sfumato.errors import ModelNotFoundError, SfumatoError, WeightsError
from sfumato.model import Model
from sfumato.nn.clip_vision import ImageEncoder
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig, Prompter
from sfumato.request import ImagePrompt
from sfumato.weights.control_file import OpenedControl, locate_control, open_control, weights_of
from sfumato.weights.controls import Filling, fill_for
from sfumato.weights.files import open_file
from sfumato.weights.image_encoder_file import beside, encoder_weights, open_image_encoder
from sfumato.weights.ip_adapter_file import ways
from sfumato.weights.locate import locate
from sfumato.weights.opened import Component


def with_image_prompts(
    model: Model,
    prompts: Sequence[ImagePrompt],
    known: Mapping[str, nn.Module] | None = None,
    filling: Filling = fill_for,
) -> Model:
    """Return the model together with IP-Adapters and their image encoders; `known` are some that have been read for it.

    `filling` gives them their weights.
    Raises ModelNotFoundError; ModelFileError for a file that cannot be read; WeightsError for one that is no
    IP-Adapter or image encoder, one for another family, or two that do not go together.
    """
    networks = dict(model.controls)
    files = dict(model.files)
    for prompt in prompts:
        adapter, encoder = locate_prompter(prompt)
        found = (known or {}).get(prompt.network)
        networks[prompt.network] = read_prompter(model, adapter, encoder, filling) if found is None else found
        files[f"control {prompt.network}"] = tuple(
            path for weights in prompter_files(prompt) for path in open_file(weights).paths
        )
    return replace(model, controls=networks, files=files)


def locate_prompter(prompt: ImagePrompt) -> tuple[Path, Path]:
    """Return the files of an image prompt's adapter and its image encoder: the one that is named, or lies beside it.

    Raises ModelNotFoundError if there is none that fits.
    """
    adapter = locate_control(prompt.model)
    if prompt.encoder is not None:
        return adapter, locate(prompt.encoder, kind="controlnet")
    config = adapter_of(open_control(adapter)).config
    there = list(beside(adapter))
    fitting = [path for path in there if fits(path, config)]
    if not fitting:
        looked = ", ".join(map(str, there)) or f"no image_encoder folder near {adapter.parent}"
        raise ModelNotFoundError(
            f"the IP-Adapter {prompt.model!r} needs an image encoder of {config.seen} features; found: {looked}. Name "
            "one, such as CLIP-ViT-H-14-laion2B-s32B-b79K."
        )
    return adapter, fitting[0]


def prompter_files(prompt: ImagePrompt) -> tuple[Path, Path]:
    """Return the weight files of an image prompt's adapter and image encoder. Errors: `locate_prompter`."""
    adapter, encoder = locate_prompter(prompt)
    return weights_of(adapter), encoder_weights(encoder)


def fits(path: Path, config: IPAdapterConfig) -> bool:
    """Say whether an image encoder gives what an adapter sees."""
    try:
        return seen_of(open_image_encoder(path).part.network, config) == config.seen
    except SfumatoError:
        return False


def seen_of(encoder: nn.Module, config: IPAdapterConfig) -> int:
    """Return how many features an image encoder gives an adapter of this form."""
    stated = cast(ImageEncoder, encoder).config
    return stated.projection_dim if config.form == "plain" else stated.hidden_size


def adapter_of(opened: OpenedControl) -> IPAdapter:
    """Return the network of an opened IP-Adapter. Raises WeightsError if it is another kind."""
    network = opened.component.part.network
    if not isinstance(network, IPAdapter):
        raise WeightsError(f"{opened.path} is {opened.title}, not an IP-Adapter; give it as a control.")
    return network


def read_prompter(model: Model, adapter: Path, encoder: Path, filling: Filling = fill_for) -> Prompter:
    """Read an IP-Adapter and its image encoder, on the device and in the precision of the model."""
    component, tower = open_prompter(model, adapter, encoder)
    for each in (component, tower):
        filling(each, model)
    down, up, _ = ways(model.unet)
    network = cast(IPAdapter, component.part.network)
    return Prompter(network, cast(ImageEncoder, tower.part.network), (len(down), len(up)))


def open_prompter(model: Model, adapter: Path, encoder: Path) -> tuple[Component, Component]:
    """Open an IP-Adapter and its image encoder for a model without reading their weights.

    Raises WeightsError if they do not go together or with the model.
    """
    opened = open_control(adapter)
    config = adapter_of(opened).config
    down, up, middle = ways(model.unet)
    width = model.unet.config.cross_attention_dim
    if config.context != width or config.widths != (*down, *up, *middle):
        raise WeightsError(
            f"{adapter} does not fit {model.name}, which is {model.family.title}: the model's words have {width} "
            f"features for {len(down + up + middle)} layers. It looks like {opened.title} ({opened.reason}). Use one "
            "of the model's family."
        )
    tower = open_image_encoder(encoder)
    seen = seen_of(tower.part.network, config)
    if seen != config.seen:
        raise WeightsError(
            f"{encoder} gives {seen} features and {adapter} sees {config.seen}: use the image encoder that it was "
            "trained with (ViT-H or ViT-bigG)."
        )
    return opened.component, tower
