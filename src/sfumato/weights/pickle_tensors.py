"""Which of a pickle's values are the weights, and what they are called: {name: tensor}, whatever lies around them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.weights.header import TENSOR_LIMIT
from sfumato.weights.pickle_values import PARAMETER_DICT, Damaged, DenseTensor, Opaque

DEEPEST = 200  # containers within containers
MOST_VISITS = 2_000_000
LONGEST_NAME = 1000
LONGEST_TOLD = 64 * 1024  # bytes of the plain values that are kept beside the tensors
# Where programs put the weights in what they save, most telling first. "params_ema" and "params": ESRGAN's trainers;
# "string_to_param": textual inversion; "state_dict": Lightning, and so CompVis' and Stability's checkpoints.
WRAPPERS = ("state_dict", "string_to_param", "params_ema", "params", "model_state_dict", "model", "module")


@dataclass(frozen=True)
class Found:
    """A checkpoint's tensors by name, the plain values that lay beside them, and the keys that were left out."""

    tensors: Mapping[str, DenseTensor]
    told: Mapping[str, Any]
    left_out: tuple[str, ...]


def find_tensors(value: object) -> Found:
    """Find the tensors in a pickle's value. Names within names are joined by dots, as state dicts have them.

    Raises Damaged if there are none, or two of one name.
    """
    told: dict[str, Any] = {}
    left_out: list[str] = []
    for _ in range(3):  # a wrapper in a wrapper in a wrapper is more than anybody writes
        inner = unwrapped(value)
        if inner is None:
            break
        assert isinstance(value, dict)
        told |= {key: each for key, each in value.items() if isinstance(key, str) and is_plain(each)}
        left_out += [str(key)[:60] for key, each in value.items() if each is not inner and has_tensor(each)]
        value = inner
    tensors: dict[str, DenseTensor] = {}
    for name, tensor in walk(value):
        if name in tensors or name == "__metadata__" or len(name) > LONGEST_NAME:
            raise Damaged(f"two of its tensors are called {name[:60]!r}, or the name is none")
        tensors[name] = tensor
        if len(tensors) > TENSOR_LIMIT:
            raise Damaged(f"it has more than {TENSOR_LIMIT:,} tensors")
    if not tensors:
        raise Damaged("it holds no tensors; get the model's weights")
    if isinstance(value, dict):
        told |= {key: each for key, each in value.items() if isinstance(key, str) and is_plain(each)}
    return Found(tensors, told if len(json.dumps(told)) <= LONGEST_TOLD else {}, tuple(left_out))


def unwrapped(value: object) -> object | None:
    """Return the mapping that holds a checkpoint's weights; None if the value is that mapping itself."""
    if not isinstance(value, dict):
        return None
    for key in WRAPPERS:
        inner = contents(value.get(key))
        if isinstance(inner, dict) and has_tensor(inner):
            return value[key]  # type: ignore[no-any-return]
    return None


def contents(value: object) -> object:
    """Return what a container holds; a torch ParameterDict holds its parameters."""
    if isinstance(value, Opaque) and value.kind == PARAMETER_DICT and isinstance(value.state, dict):
        return value.state.get("_parameters")
    return value


def has_tensor(value: object) -> bool:
    """Say whether there is a tensor within a value."""
    return next(walk(value, deepest=8), None) is not None


def walk(value: object, *, deepest: int = DEEPEST) -> Iterator[tuple[str, DenseTensor]]:
    """Yield the tensors within a value and their names, in order. Raises Damaged for what is nested too deep."""
    waiting: list[tuple[str, object, int]] = [("", value, 0)]
    for _ in range(MOST_VISITS):
        if not waiting:
            return
        name, each, depth = waiting.pop()
        each = contents(each)
        if isinstance(each, DenseTensor):
            yield name or "tensor", each
            continue
        inner: list[tuple[Any, Any]] = []
        if isinstance(each, dict):
            inner = list(each.items())
        elif isinstance(each, list | tuple):
            inner = list(enumerate(each))
        if inner and depth >= deepest:
            if deepest < DEEPEST:
                continue
            raise Damaged(f"its values are nested more than {DEEPEST} deep")
        for key, part in reversed(inner):
            if isinstance(part, DenseTensor | dict | list | tuple | Opaque):
                waiting.append((f"{name}.{key}" if name else str(key), part, depth + 1))
    raise Damaged(f"it has more than {MOST_VISITS:,} values")


def is_plain(value: object) -> bool:
    """Say whether a value is a short text or a number that JSON has."""
    if isinstance(value, str):
        return len(value) <= LONGEST_NAME
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, float) and value == value and abs(value) != float("inf")
