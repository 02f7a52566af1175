"""Models larger than the memory: their weights stay in a file's pages, and each layer's pages go when it has answered.

The file is made once from the model's own, in the precision and the order in which the layers use it, and kept in our
cache by the sha256 of what it was made from. What is mapped counts as a process's memory for as long as a layer uses
it; the system keeps the file's pages in what memory is free, and reads them again where it is not.
"""

import logging
import mmap
import shutil
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.errors import ModelFileError, OutputError
from sfumato.model import Model, autoencoder_dtype
from sfumato.nn.attention import MapAttention, TransformerBlock
from sfumato.nn.blocks import Downsample, Embedding, ResnetBlock, Upsample
from sfumato.nn.clip import Layer
from sfumato.nn.clip_vision import PictureEmbeddings
from sfumato.weights.files import DTYPES
from sfumato.weights.hashing import hash_files
from sfumato.weights.header import Header, read_header
from sfumato.weights.load import hollow
from sfumato.weights.opened import Component, Opened
from sfumato.weights.places import home
from sfumato.weights.streaming import write_stream
from sfumato.weights.writing import written_aside

log = logging.getLogger(__name__)

VERSION = 1
# What answers as one: its weights are let go together. Some use their layers' weights themselves (see their forward).
UNITS = (
    ResnetBlock, TransformerBlock, MapAttention, Downsample, Upsample, Embedding, Layer, PictureEmbeddings,
    nn.MultiheadAttention,
)  # fmt: skip
DROP = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows, where pages stay until others need the room


def can_stream(device: torch.device) -> bool:
    """Say whether weights can be let go of layer by layer on a device."""
    return device.type == "cpu" and DROP is not None


def read_streamed(opened: Opened, name: str, dtype: torch.dtype) -> Model:
    """Read an opened model so that its weights stay on the disk. Errors: `read`'s, and OutputError without room.

    The model answers as the one that `read` gives, up to rounding: its convolutions have their weights in another
    order in memory.
    """
    model = hollow(opened, name)
    parts = {part: (component, kind_of(opened, part, dtype)) for part, component in opened.components.items()}
    header = converted(parts, f"{dtype} {opened.family.name}")
    room = pages(header)
    for part, component in opened.components.items():
        lay(component.part.network, part, header, room)
        let_go(component.part.network, part, header, room)
    return model


def stream(component: Component, dtype: torch.dtype) -> None:
    """Give one opened network weights that stay on the disk. Errors: those of `read_streamed`."""
    part, network = component.part.name, component.part.network
    header = converted({part: (component, dtype)}, f"{dtype} {part}")
    room = pages(header)
    lay(network, part, header, room)
    let_go(network, part, header, room)


def pages(header: Header) -> mmap.mmap:
    """Return a file mapped into memory; what writes there writes to a copy."""
    with header.path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def lay(network: nn.Module, part: str, header: Header, room: mmap.mmap) -> None:
    """Give a network its weights in a mapped file."""
    state = {key: mapped(room, header, f"{part}/{key}") for key in network.state_dict()}
    network.load_state_dict(state, strict=True, assign=True)
    network.requires_grad_(False).eval()


def let_go(network: nn.Module, part: str, header: Header, room: mmap.mmap) -> None:
    """Let each layer of a network let go of its pages when it has answered."""
    for path, unit in units(network):
        names = [f"{part}/{path}.{key}" for key in unit.state_dict()]
        unit.register_forward_hook(dropping(room, span(header, names)))


def units(network: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Give the parts of a network that answer as one, and what is left with weights of its own."""
    for name, child in network.named_children():
        inner = f"{path}.{name}" if path else name
        if isinstance(child, UNITS) or next(child.children(), None) is None:
            if next(child.parameters(), None) is not None:
                yield inner, child
        else:
            yield from units(child, inner)


def span(header: Header, names: list[str]) -> tuple[int, int]:
    """Return first byte and length of the whole pages that some tensors, which lie together, fill in the file."""
    infos = [header.tensors[name] for name in names]
    first = header.start + min(info.start for info in infos)
    last = header.start + max(info.end for info in infos)
    assert last - first < sum(info.end - info.start for info in infos) + 4096 * len(infos), "they lie together"
    start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    return start, max(last // mmap.PAGESIZE * mmap.PAGESIZE - start, 0)


def dropping(room: mmap.mmap, pages: tuple[int, int]) -> Callable[..., None]:
    """Return what lets go of pages when a layer has answered."""
    start, length = pages

    def drop(*_: Any) -> None:
        if length:
            room.madvise(DROP, start, length)  # type: ignore[arg-type]  # can_stream has asked

    return drop


def mapped(room: mmap.mmap, header: Header, name: str) -> Tensor:
    """Return a tensor in the file's pages; four-dimensional ones have their channels innermost."""
    info = header.tensors[name]
    flat = torch.frombuffer(room, dtype=DTYPES[info.dtype], count=info.count, offset=header.start + info.start)
    stored = flat.view(info.shape)
    return stored.permute(0, 3, 1, 2) if len(info.shape) == 4 else stored


def converted(parts: Mapping[str, tuple[Component, torch.dtype]], what: str) -> Header:
    """Return the header of the file in which networks are, each in a precision and our order; made if it has to be.

    The file is kept by the sha256 of what they are read from and by `what` they are. Raises OutputError where there is
    no room for it.
    """
    digests = [hash_files(component.tensors.paths) for component, _ in parts.values()]
    key = sha256(f"{VERSION} {what} {' '.join(digests)}".encode()).hexdigest()
    path = home() / "cache" / "streamed" / f"{key}.safetensors"
    if path.is_file():
        try:
            return read_header(path)
        except ModelFileError:
            log.warning("%s is damaged and is made again", path)
    outline, found = {}, {}
    for part, (component, kind) in parts.items():
        names = component.places
        for name, tensor in component.part.network.state_dict().items():
            outline[f"{part}/{name}"] = (kind, innermost(tensor.shape))
            found[f"{part}/{name}"] = (component, *names[name])
    size = sum(kind.itemsize * torch.Size(shape).numel() for kind, shape in outline.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise OutputError(
            f"{size / 1e9:.1f} GB are needed in {path.parent} for weights that stay on the disk, and "
            f"{free / 1e9:.1f} GB are free; make room, or let SFUMATO_HOME name a folder on a larger disk."
        )
    first = next(iter(parts.values()))[0]
    log.info("%s is written as %s, once, to be used from there", first.tensors.paths[0], path)

    def produce(name: str) -> Tensor:
        component, rule, place = found[name]
        tensor = rule.read(component.tensors[rule.theirs])[place].to(outline[name][0])
        return tensor.permute(0, 2, 3, 1).contiguous() if tensor.ndim == 4 else tensor

    with written_aside(path, overwrite=True) as aside:
        write_stream(aside, outline, produce, {"format": "pt"})
    return read_header(path)


def held_while_converting(opened: Opened, dtype: torch.dtype) -> int:
    """Return the bytes of the largest tensor as it is read and as it is written, which are there together."""
    most = 0
    for part, component in opened.components.items():
        kind = kind_of(opened, part, dtype)
        for info in map(component.tensors.infos.__getitem__, {rule.theirs for rule in component.part.naming}):
            copies = (DTYPES[info.dtype] != kind) + (len(info.shape) == 4)
            most = max(most, info.end - info.start + copies * info.count * kind.itemsize)
    return most


def kind_of(opened: Opened, part: str, dtype: torch.dtype) -> torch.dtype:
    """Return the precision of a part: the autoencoder may need a wider one."""
    if part != "vae":
        return dtype
    network: Any = opened.autoencoder.part.network
    return autoencoder_dtype(opened.family, network, dtype) or dtype


def innermost(shape: torch.Size) -> tuple[int, ...]:
    """Return the shape as it is stored: with the channels of convolutions innermost."""
    return tuple(shape) if len(shape) != 4 else (shape[0], shape[2], shape[3], shape[1])
