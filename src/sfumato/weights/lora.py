"""LoRAs made part of a model: a second model that shares every tensor that they do not change with the first."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from sfumato.errors import ModelNotFoundError, WeightsError
from sfumato.model import Model
from sfumato.nn.change import changeable
from sfumato.nn.lora import Changes, act_beside, merge, twin
from sfumato.request import Lora
from sfumato.weights.locate import locate
from sfumato.weights.lora_family import family_title
from sfumato.weights.lora_file import OpenedLora, open_lora, the_file
from sfumato.weights.lora_names import UNET
from sfumato.weights.opened import text_names

N = TypeVar("N", bound=nn.Module)

log = logging.getLogger(__name__)


def with_loras(model: Model, loras: Sequence[Lora], *, allow_unmatched: bool = False, beside: bool = False) -> Model:
    """Return the model with LoRAs merged into its UNet and text encoders; the model itself stays as it is.

    `beside`: those that can act beside the weights, which then need not be there a second time. Errors and
    `allow_unmatched` are those of `read_for`.
    """
    if not loras:
        return model
    parts: dict[str, list[tuple[Changes, float]]] = {}
    files = dict(model.files)
    for lora in loras:
        path = locate_lora(lora.name)
        for network, adapters in read_for(model, path, allow_unmatched=allow_unmatched).items():
            parts.setdefault(network, []).append((adapters, lora.weight if network == UNET else lora.text_weight))
        files[f"lora {lora.name}"] = (path,)

    def changed(name: str, network: N) -> N:
        if name not in parts:
            return network
        second = twin(network)
        if beside:
            act_beside(second, parts[name])
        else:
            merge(second, parts[name])
        return second

    encoders = zip(text_names(model.family.text), model.text.encoders, strict=True)
    return replace(
        model,
        unet=changed(UNET, model.unet),
        text=replace(model.text, encoders=tuple(changed(name, encoder) for name, encoder in encoders)),
        files=files,
        loras=(*model.loras, *loras),
    )


def read_for(model: Model, path: Path, *, allow_unmatched: bool = False) -> dict[str, Changes]:
    """Read a LoRA's adapters for a model: network -> adapters, which fit it.

    With `allow_unmatched`, what has no layer in the model is left out and its names are logged; that cannot be all.
    Raises WeightsError, which counts what does not fit and says what the file looks made for, and what `open_lora`
    raises.
    """
    opened = open_for(model, path, allow_unmatched=allow_unmatched)
    networks = networks_of(model)
    absent = unmatched(opened, networks)
    if absent:
        log.warning("%s: %d tensors are left out: %s", opened.path, len(absent), ", ".join(absent))
    found = {name: fitting(opened, name, network, told(opened, model)) for name, network in networks.items()}
    return {name: adapters for name, adapters in found.items() if len(adapters)}


def open_for(model: Model, path: Path, *, allow_unmatched: bool = False) -> OpenedLora:
    """Open a LoRA for a model without reading its weights. Errors are those of `read_for` that its names show."""
    opened = open_lora(path, model.unet)
    networks = networks_of(model)
    absent = unmatched(opened, networks)
    if absent and not allow_unmatched:
        raise WeightsError(
            f"{told(opened, model)}: {len(absent)} of its tensors have no layer there, first {absent[0]!r}. "
            f"{looks(opened)} Use a LoRA of the model's family, or allow unmatched tensors to leave them out."
        )
    layers = {name: changeable(network) for name, network in networks.items()}
    if not any(path in layers.get(name, {}) for name, entries in opened.entries.items() for path in entries):
        raise WeightsError(f"{told(opened, model)}: none of its tensors has a layer there. {looks(opened)}")
    return opened


def fitting(opened: OpenedLora, name: str, network: nn.Module, unfit: str) -> Changes:
    """Read the adapters of one network's layers. Raises WeightsError, which begins with `unfit`, for another shape."""
    layers = changeable(network)
    adapters = opened.read(name, only=layers)
    wrong = [path for path, adapter in adapters.items() if not adapter.fits(layers[path])]
    if wrong:
        shape = list(layers[wrong[0]].weight.shape)
        raise WeightsError(
            f"{unfit}: {len(wrong)} of {len(adapters)} adapters of its {name} have another shape, first {wrong[0]!r}: "
            f"{shapes_in(opened, name, wrong[0])} for a weight of {shape}. {looks(opened)} Use a LoRA of the model's "
            "family."
        )
    return adapters


def shapes_in(opened: OpenedLora, network: str, path: str) -> str:
    """Say what the tensors of a layer's adapter are like."""
    names = opened.entries[network][path].names
    return ", ".join(f"{role} {list(opened.tensors.infos[name].shape)}" for role, name in names.items())


def unmatched(opened: OpenedLora, networks: Mapping[str, nn.Module]) -> list[str]:
    """List the tensors of a file that belong to no layer of these networks."""
    absent = list(opened.unmatched)
    for name, entries in opened.entries.items():
        layers = changeable(networks[name]) if name in networks else {}
        absent += [tensor for path, each in entries.items() if path not in layers for tensor in each.names.values()]
    return sorted(absent)


def networks_of(model: Model) -> dict[str, nn.Module]:
    """Return the networks that a LoRA can change, by their names in a diffusers folder; the UNet first."""
    return {UNET: model.unet, **dict(zip(text_names(model.family.text), model.text.encoders, strict=True))}


def locate_lora(name: str) -> Path:
    """Return the file of a LoRA: an alias, a path, or `org/name` in the local cache. Raises ModelNotFoundError."""
    try:
        return the_file(locate(name, kind="lora"))
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"the LoRA {name!r} is not there: {error}") from error


def told(opened: OpenedLora, model: Model) -> str:
    """Say that a file does not fit a model, as the beginning of a message."""
    return f"{opened.path} does not fit {model.name}, which is {model.family.title}"


def looks(opened: OpenedLora) -> str:
    """Say what a file looks made for, as a sentence."""
    family, reason = opened.family
    return f"It looks made for {family_title(family)} ({reason})."
