"""A network and a file become a network with weights, or one error: never half of it.

The network is built on the meta device, where it has names and shapes only. These are compared with the file's before
a weight is read; each weight is checked as it is read; then all are assigned at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sfumato.errors import WeightsError
from sfumato.weights.arena import reserve
from sfumato.weights.files import DTYPES, TensorFile, check_finite, is_finite
from sfumato.weights.header import FLOATING
from sfumato.weights.naming import Naming, Rule, their_shapes
from sfumato.weights.recognise import Shapes, counted, recognise

M = TypeVar("M", bound=nn.Module)

PIECE = 1 << 16  # numbers converted at a time


@dataclass(frozen=True)
class Placement:
    """Where weights go: a device, and a precision (None: as the file has them).

    Convolutions that are copied get the memory `order`; with `reorder` that alone is a reason to copy them, on a CPU.
    Channels last makes a UNet's step there 2 % faster in float32 and 4 % in bfloat16, an autoencoder's decoding 10 %.
    `pinned`: in memory of the CPU that CUDA reads by itself.
    """

    device: torch.device
    dtype: torch.dtype | None
    order: torch.memory_format = torch.channels_last
    reorder: bool = False
    pinned: bool = False


@dataclass(frozen=True)
class Part:
    """A network on the meta device and the rules by which a file fills it. `name` is its name in messages."""

    name: str
    network: nn.Module
    naming: Naming


class WithoutInitialisation(TorchFunctionMode):
    """Within, what `torch.nn.init` would fill is left as it is.

    Drawing numbers for tensors without memory would import PyTorch's compiler, which takes seconds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":  # methods in C have none
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def on_meta(make: Callable[[], M]) -> M:
    """Build a network without memory for its weights."""
    with torch.device("meta"), WithoutInitialisation():
        return make()


def shapes_of(tensors: TensorFile) -> Shapes:
    """Return the shape of each tensor in a file."""
    return {name: info.shape for name, info in tensors.infos.items()}


def check_parts(path: Path, title: str, parts: Iterable[Part], tensors: TensorFile, extra: Iterable[str] = ()) -> None:
    """Compare the names and shapes that the parts need with the file's; `extra` are names that belong to no part.

    Raises WeightsError that counts what differs, names the first of each, and says what the file looks like.
    """
    found = shapes_of(tensors)
    missing: list[str] = []
    other: list[str] = []
    for part in parts:
        for name, shape in needed(part).items():
            if name not in found:
                missing.append(name)
            elif found[name] not in shape:
                other.append(f"{name!r} {list(found[name])} instead of {list(shape[0])}")
            elif tensors.infos[name].dtype not in FLOATING:
                other.append(f"{name!r} holds {tensors.infos[name].dtype}, not floating-point numbers")
    unknown = sorted(extra)
    if not (missing or other or unknown):
        return
    differences = []
    if missing:
        differences.append(f"{counted(len(missing), 'tensor')} missing, first {missing[0]!r}")
    if other:
        differences.append(f"{counted(len(other), 'tensor')} of another shape or type, first {other[0]}")
    if unknown:
        differences.append(f"{counted(len(unknown), 'tensor')} too many, first {unknown[0]!r}")
    looks = recognise(found)
    raise WeightsError(
        f"{path} is not {title}: {'; '.join(differences)}. It looks like {looks.what} ({looks.reason}). "
        "Use the file or folder of one whole model, and get it again if it should be one."
    )


def needed(part: Part) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the shapes that each tensor of the file may have; a projection may be a convolution or a matrix."""
    kinds = {rule.theirs: rule.kind for rule in part.naming}
    shapes = their_shapes(part.naming, part.network.state_dict())
    return {name: (shape, shape[:2]) if kinds[name] == "matrix" else (shape,) for name, shape in shapes.items()}


def fill(part: Part, tensors: TensorFile, placement: Placement) -> None:
    """Give a network its weights from a file whose names and shapes have been checked.

    Raises ModelFileError for a weight that cannot be read or is not finite; the network is then left without any.
    """
    state: dict[str, torch.Tensor] = {}
    converted: list[Rule] = []
    for rule in part.naming:
        if not stays(rule, tensors, placement):
            converted.append(rule)
            continue
        tensor = tensors.map(rule.theirs)
        check_finite(rule.theirs, tensor, tensors.path_of(rule.theirs))
        state.update(zip(rule.ours, rule.read(tensor), strict=True))
    empty = part.network.state_dict()
    wanted = {
        name: (empty[name].shape, placement.dtype or DTYPES[tensors.infos[rule.theirs].dtype])
        for rule in converted
        for name in rule.ours
    }
    room = reserve(wanted.values(), placement.device, placement.order, pinned=placement.pinned)
    state.update(zip(wanted, room, strict=True))
    for rule, tensor in read_ahead(converted, tensors):
        for name, value in zip(rule.ours, rule.read(tensor), strict=True):
            convert(value, state[name])
            if not is_finite(state[name]):
                path = tensors.path_of(rule.theirs)
                check_finite(rule.theirs, tensor, path)
                raise WeightsError(
                    f"{path}: {rule.theirs!r} of the {part.name} is too large for {state[name].dtype}; "
                    "use bfloat16 or float32."
                )
    part.network.load_state_dict(state, strict=True, assign=True)
    part.network.requires_grad_(False).eval()


def stays(rule: Rule, tensors: TensorFile, placement: Placement) -> bool:
    """Say whether a weight is used where it lies in the file's pages, which takes no time and no memory of its own.

    A convolution is copied, to have its channels last, where it gains more than the copy costs.
    """
    info = tensors.infos[rule.theirs]
    dtype = DTYPES[info.dtype]
    if (
        placement.pinned
        or placement.device.type != "cpu"
        or placement.dtype not in (None, dtype)
        or rule.kind == "transposed"
    ):
        return False
    return len(info.shape) != 4 or rule.kind == "matrix" or not (placement.reorder or dtype.itemsize < 4)


def convert(value: torch.Tensor, placed: torch.Tensor) -> None:
    """Copy numbers into memory of another type or layout."""
    if (value.dtype, placed.dtype) != (torch.float16, torch.bfloat16):
        placed.copy_(value)
        return
    # PyTorch takes these one by one; by way of float32, in pieces that stay in the processor's caches, it is faster.
    rows = max(1, PIECE // value[0].numel())
    for first in range(0, len(value), rows):
        piece = slice(first, first + rows)
        placed[piece] = value[piece].float().to(placed.dtype)


def read_ahead(naming: Sequence[Rule], tensors: TensorFile) -> Iterator[tuple[Rule, torch.Tensor]]:
    """Yield each rule with the tensor of theirs, which is valid until the next is asked for: that is read meanwhile."""
    infos = [tensors.infos[rule.theirs] for rule in naming]
    largest = max((info.end - info.start for info in infos), default=0)
    scratch = [torch.empty(largest, dtype=torch.uint8) for _ in range(2)]  # touched once, used again and again

    def read(number: int) -> torch.Tensor:
        info = infos[number]
        tensor = scratch[number % 2][: info.end - info.start].view(DTYPES[info.dtype]).view(info.shape)
        tensors.read_into(naming[number].theirs, tensor)
        return tensor

    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = [reader.submit(read, 0)] if naming else []
        for number, rule in enumerate(naming):
            tensor = coming.pop().result()
            if number + 1 < len(naming):
                coming.append(reader.submit(read, number + 1))
            yield rule, tensor
