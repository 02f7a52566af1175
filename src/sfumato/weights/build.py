"""A network and a file become a network with weights, or one error: never half of it.

The network is built on the meta device, where it has names and shapes only. These are compared with the file's before
a weight is read; each weight is checked as it is read; then all are assigned at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sfumato.errors import WeightsError
from sfumato.weights.files import TensorFile, check_finite, is_finite
from sfumato.weights.header import FLOATING
from sfumato.weights.naming import Naming, their_shapes
from sfumato.weights.recognise import Shapes, recognise

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Placement:
    """Where weights go: a device, and a precision (None: as the file has them)."""

    device: torch.device
    dtype: torch.dtype | None


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
        differences.append(f"{len(missing)} tensors missing, first {missing[0]!r}")
    if other:
        differences.append(f"{len(other)} tensors of another shape or type, first {other[0]}")
    if unknown:
        differences.append(f"{len(unknown)} tensors too many, first {unknown[0]!r}")
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
    for rule in part.naming:
        tensor = tensors[rule.theirs]
        for name, value in zip(rule.ours, rule.read(tensor), strict=True):
            placed = value.to(placement.device, placement.dtype or value.dtype)
            # The sum of float32 is several times faster than that of the float16 it was made from.
            if not is_finite(placed):
                path = tensors.path_of(rule.theirs)
                check_finite(rule.theirs, tensor, path)
                raise WeightsError(
                    f"{path}: {rule.theirs!r} of the {part.name} is too large for {placed.dtype}; "
                    "use bfloat16 or float32."
                )
            state[name] = placed
    part.network.load_state_dict(state, strict=True, assign=True)
    part.network.requires_grad_(False).eval()
