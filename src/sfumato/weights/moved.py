"""Models larger than a device's memory: their weights rest in the host's, and those that compute are on the device.

Where the host has no room for them either they stay on the disk, in the file of `sfumato.weights.streamed`.
"""

import itertools
from typing import Any, cast

import torch

from sfumato.model import Model, autoencoder_dtype, autoencoder_order
from sfumato.nn.clip_vision import ImageEncoder
from sfumato.nn.resting import Resting, Room, rest
from sfumato.weights.build import Placement, fill
from sfumato.weights.files import DTYPES
from sfumato.weights.load import hollow
from sfumato.weights.opened import Component, Opened
from sfumato.weights.streamed import converted, kind_of, lay, pages

HOST = torch.device("cpu")
NUMBERS = itertools.count()  # of models, by which their networks are told apart


def read_moved(opened: Opened, name: str, room: Room, dtype: torch.dtype | None, *, on_disk: bool = False) -> Model:
    """Read an opened model whose weights come into the room of a device when they compute. Errors: `read`'s.

    `on_disk`: they rest on the disk, and `read_streamed`'s errors are raised too.
    """
    model, number = hollow(opened, name), next(NUMBERS)
    kinds = {part: kind_of(opened, part, dtype or file_dtype(opened.unet)) for part in opened.components}
    header = None
    if on_disk:
        header = converted(
            {part: (each, kinds[part]) for part, each in opened.components.items()},
            f"{kinds['unet']} {opened.family.name}",
        )
    mapped = None if header is None else pages(header)
    for part, component in opened.components.items():
        network: Any = component.part.network
        order = autoencoder_order(room.device) if part == "vae" else torch.channels_last
        if header is not None and mapped is not None:
            lay(network, part, header, mapped)
        else:
            shy = autoencoder_dtype(opened.family, network, dtype) if part == "vae" else dtype
            fill(component.part, component.tensors, placed(room, shy, order, reorder=part == "vae"))
        rest(network, room, f"{part.removesuffix('_2')} {number}", on_device(order, room))
    return model


def placed(room: Room, dtype: torch.dtype | None, order: torch.memory_format, *, reorder: bool = False) -> Placement:
    """Return where weights rest that come into a room."""
    return Placement(HOST, dtype, order, reorder=reorder, pinned=room.device.type == "cuda")


def on_device(order: torch.memory_format, room: Room) -> torch.memory_format | None:
    """Return the memory order that weights have on a device: there as if they stayed, on a CPU as they were read."""
    return None if room.device.type == "cpu" else order


def fill_resting(component: Component, model: Model) -> None:
    """Give an opened network beside a model weights that come into the room of the model's.

    Control networks compute in turns with its UNet and are there together; an image encoder is alone.
    """
    beside = cast(Resting, model.unet.conv_in.weight)
    network, room = component.part.network, beside.room
    fill(component.part, component.tensors, placed(room, model.dtype, torch.channels_last))
    alone = f"image encoder {next(NUMBERS)}" if isinstance(network, ImageEncoder) else beside.weight.network
    rest(network, room, alone, on_device(torch.channels_last, room))


def file_dtype(component: Component) -> torch.dtype:
    """Return the precision that most numbers of a network have in its file."""
    sizes: dict[torch.dtype, int] = {}
    for rule in component.part.naming:
        info = component.tensors.infos[rule.theirs]
        sizes[DTYPES[info.dtype]] = sizes.get(DTYPES[info.dtype], 0) + info.count
    return max(sizes, key=lambda dtype: sizes[dtype])
