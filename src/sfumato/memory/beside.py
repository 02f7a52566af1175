"""What a request uses beside its model, opened without reading a weight: LoRAs, control networks, a refiner, ..."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from sfumato.model import Model
from sfumato.nn.change import changeable
from sfumato.nn.clip_vision import ImageEncoder
from sfumato.nn.ip_adapter import Prompter
from sfumato.nn.upscaler import Upscaler
from sfumato.request import LATENT_UPSCALERS, Control, ImagePrompt, Lora, Request
from sfumato.request.traits import BLENDED
from sfumato.upscaling import FILTERS, network_file
from sfumato.weights.build import on_meta
from sfumato.weights.control_file import locate_control, open_control
from sfumato.weights.controls import control_file
from sfumato.weights.files import open_file
from sfumato.weights.image_encoder_file import open_image_encoder
from sfumato.weights.image_prompts import adapter_of, locate_prompter, prompter_files
from sfumato.weights.ip_adapter_file import ways
from sfumato.weights.lora import locate_lora, networks_of
from sfumato.weights.lora_file import OpenedLora, open_lora
from sfumato.weights.upscaler_file import hollow_upscaler


@dataclass(frozen=True)
class Beside:
    """Networks beside a model's, on the meta device, and files of low-rank changes of its own.

    `controls` and `prompts` are those of the request with their networks; a control network that is named twice is
    there once. `made_of_unet` names those that are made of the UNet's weights, and so in memory. `companion`: the
    changes that make the model see a mask.
    """

    loras: tuple[OpenedLora, ...] = ()
    companion: OpenedLora | None = None
    controls: tuple[tuple[Control, nn.Module], ...] = ()
    prompts: tuple[tuple[ImagePrompt, Prompter], ...] = ()
    refiner: Model | None = None
    upscaler: Upscaler | None = None
    made_of_unet: frozenset[str] = frozenset()

    @property
    def made(self) -> tuple[nn.Module, ...]:
        """Those of the networks that are made of the UNet's weights."""
        return tuple({id(each): each for control, each in self.controls if control.model in self.made_of_unet}.values())

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks in the model's own precision, each once."""
        found = [*(each for _, each in self.controls), *(each for _, each in self.prompts)]
        return tuple({id(each): each for each in found}.values())

    def changed(self, model: Model, dtype: torch.dtype, *, acting_beside: bool = False) -> int:
        """Return the bytes of the weights of a model that are there a second time, because something changes them.

        `acting_beside`: low-rank changes act beside the weights, and are there in their place.
        """
        layers = {name: changeable(network) for name, network in networks_of(model).items()}
        merged: dict[tuple[str, str], int] = {}
        beside = 0
        for file in self._changes():
            for name, entries in file.entries.items():
                for path, entry in entries.items():
                    if path not in layers.get(name, {}):
                        continue
                    if acting_beside and entry.low_rank:
                        infos = (file.tensors.infos[each] for each in entry.names.values())
                        beside += sum(info.end - info.start for info in infos)
                    else:
                        merged[name, path] = layers[name][path].weight.numel() * dtype.itemsize
        return sum(merged.values()) + beside

    @property
    def change_bytes(self) -> int:
        """The bytes of the files of changes, which are there until they are merged."""
        infos = (info for file in self._changes() for info in file.tensors.infos.values())
        return sum(info.end - info.start for info in infos)

    def _changes(self) -> Iterator[OpenedLora]:
        yield from self.loras
        if self.companion is not None:
            yield self.companion


NOTHING = Beside()
"""A model alone."""


def files_beside(request: Request, loras: Iterable[Lora]) -> int:
    """Return the bytes of the files of the networks and LoRAs that a request uses. Errors: those of finding them."""
    paths = {locate_lora(each.name) for each in loras}
    paths |= {control_file(each.model) for each in request.controls}
    paths |= {path for each in request.image_prompts for path in prompter_files(each)}
    paths |= {path for path in [upscaler_of(request)] if path is not None}
    return sum(path.stat().st_size for weights in paths for path in open_file(weights).paths)


def upscaler_of(request: Request) -> Path | None:
    """Return the file of the network that enlarges a request's pictures before a second pass."""
    if request.hires is None or request.hires.upscaler in (*LATENT_UPSCALERS, *FILTERS):
        return None
    return network_file(request.hires.upscaler)


def open_beside(
    request: Request, model: Model, loras: Sequence[Lora], refiner: Model | None, *, masked: bool
) -> Beside:
    """Return what a request uses beside a model, without a weight read; errors are those of reading it.

    `loras` are the request's and those that its prompts name; `masked`: is there a mask?
    """
    named = {each.model for each in request.controls}
    known = {name: open_control(locate_control(name), model.unet.config) for name in sorted(named)}
    made_of_unet = frozenset(name for name, each in known.items() if each.added or each.low_rank is not None)

    seen: dict[str, Prompter] = {}
    for each in request.image_prompts:
        seen.setdefault(each.network, hollow_prompter(model, *locate_prompter(each)))
    sees_mask = masked and request.masking != "blend" and not any(getattr(request, field) for field in BLENDED)
    companion = None
    if sees_mask and model.companion is not None:
        companion = open_lora(model.companion.files[0], model.unet)
    upscaler = upscaler_of(request)
    return Beside(
        loras=tuple(open_lora(locate_lora(each.name), model.unet) for each in loras),
        companion=companion,
        controls=tuple((each, known[each.model].component.part.network) for each in request.controls),
        prompts=tuple((each, seen[each.network]) for each in request.image_prompts),
        refiner=refiner,
        upscaler=None if upscaler is None else hollow_upscaler(upscaler),
        made_of_unet=made_of_unet,
    )


def hollow_prompter(model: Model, adapter: Path, encoder: Path) -> Prompter:
    """Return an IP-Adapter and its image encoder on the meta device."""
    down, up, _ = ways(model.unet)
    tower = cast(ImageEncoder, open_image_encoder(encoder).part.network)
    return on_meta(lambda: Prompter(adapter_of(open_control(adapter)), tower, (len(down), len(up))))
