"""The axes of a plot: a field of a request and the values that it takes, and the requests of all the cells.

    steps=10,20,30              values; one with a comma stands in quotes
    seed=1-5    1-9 (+2)        a range, or every second; both ends count
    guidance=2-8 [4]            so many values, evenly spaced
    prompt=house,tree,boat      the first is replaced by each, in the prompt and the negative prompt
    hires.strength=0.3,0.5      a field of a part
    lora=style.safetensors:0.5,none

As A1111 writes them; its own names of the axes ("CFG Scale", "Prompt S/R") are known too.
"""

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sfumato.errors import RequestError
from sfumato.request import Request, ranges

MOST = 2_500  # cells; a plot of 50 x 50 takes hours on anything

ALIASES = {
    "cfg": "guidance",
    "cfg_scale": "guidance",
    "denoising": "strength",
    "denoising_strength": "strength",
    "negative": "negative_prompt",
    "prompt_s_r": "prompt",
    "checkpoint_name": "model",
    "schedule_type": "spacing",
    "loras": "lora",
    "embeddings": "embedding",
    "var_seed": "variation.seed",
    "var_strength": "variation.strength",
    "hires_steps": "hires.steps",
    "hires_upscaler": "hires.upscaler",
    "hires_sampler": "hires.sampler",
}
WORDS = ("prompt", "negative_prompt")  # searched and replaced
FILES = {"lora": "loras", "embedding": "embeddings"}
WHOLE_IN_PARTS = ("seed", "steps", "left", "top", "right", "bottom", "feather")
NOT_AXES = ("count", "batch", "image", "mask", "strict", "loras", "embeddings")

_RANGE = re.compile(r"([+-]?\d+(?:\.\d*)?)\s*-\s*([+-]?\d+(?:\.\d*)?)\s*(?:\(([+-]?\d+(?:\.\d*)?)\)|\[(\d+)\])?")


@dataclass(frozen=True)
class Axis:
    """A field of a request, its values in their order, and their texts."""

    field: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands beside the cells of each value."""
        return self.texts if self.field in WORDS else tuple(f"{self.field} {text}" for text in self.texts)


@dataclass(frozen=True)
class Cell:
    """A place in a plot, counted from 0 along x, y and z, and what is drawn there."""

    x: int
    y: int
    z: int
    request: Request


def parse_axis(text: str) -> Axis:
    """The axis of a text such as `steps=10,20`. Raises RequestError that names what is wrong."""
    name, equals, listed = text.partition("=")
    field = _field(name)
    items = [item.strip() for item in next(csv.reader([listed], skipinitialspace=True), [])]
    if not equals or not items or not all(items):
        raise RequestError(f"the axis {text!r} has no values; write it as steps=10,20,30", field or None)
    texts = [each for item in items for each in _spread(field, item)]
    return Axis(field, tuple(_value(field, each) for each in texts), tuple(texts))


def cells(request: Request, x: Axis | None = None, y: Axis | None = None, z: Axis | None = None) -> list[Cell]:
    """The cells of a plot, those with the same model next to each other. Raises RequestError.

    All have the seed of the request, which must have one, unless an axis says otherwise.
    """
    axes = (x, y, z)
    named = [axis.field for axis in axes if axis is not None]
    if len(set(named)) < len(named) and not set(named) <= set(WORDS):
        raise RequestError(f"two axes have the field {max(named, key=named.count)}; each needs its own")
    if request.total != 1:
        raise RequestError(f"a plot is of one picture, not of {request.total}; leave out count and the other prompts")
    counts = [1 if axis is None else len(axis.values) for axis in axes]
    if counts[0] * counts[1] * counts[2] > MOST:
        raise RequestError(f"the plot has {' x '.join(map(str, counts))} cells; at most {MOST} are drawn")
    found = []
    for i, j, k in itertools.product(*map(range, counts)):
        values = request.to_dict()
        for axis, index in zip(axes, (i, j, k), strict=True):
            if axis is not None:
                _apply(values, axis, index)
        found.append(Cell(i, j, k, Request.from_dict(values)))
    order = {key: number for number, key in enumerate(dict.fromkeys(map(_weights, found)))}
    return sorted(found, key=lambda cell: (order[_weights(cell)], cell.z, cell.y, cell.x))


def _weights(cell: Cell) -> tuple[object, ...]:
    request = cell.request
    return request.model, request.vae, request.loras, request.embeddings


def _field(name: str) -> str:
    """The field, or the field of a part, that a name on an axis stands for."""
    plain = re.sub(r"[^a-z0-9.]+", "_", name.strip().lower()).strip("_")
    field = ALIASES.get(plain, plain)
    known = [each.name for each in fields(Request) if each.name not in NOT_AXES]
    if field in ("size", "seed_size", *FILES) or field.partition(".")[0] in known:
        return field
    raise RequestError(
        f"there is no field {name.strip()!r} for an axis; there are {', '.join((*FILES, 'size', *known))}"
    )


def _spread(field: str, item: str) -> list[str]:
    """The values of an item that is a range, as text; any other is itself."""
    found = _RANGE.fullmatch(item) if _is_number(field) else None
    if found is None:
        return [item]
    first, last, step, count = found.groups()
    if _is_whole(field):
        low, high = int(float(first)), int(float(last))
        if count is not None:
            return [str(int(each)) for each in _spaced(low, high, int(count))]
        stride = int(float(step or 1))
        return [str(each) for each in range(low, high + (1 if stride > 0 else -1), stride or 1)]
    low_number, high_number = float(first), float(last)
    if count is not None:
        return [f"{each:g}" for each in _spaced(low_number, high_number, int(count))]
    size = float(step or 1) or 1.0
    steps = int((high_number - low_number) / size + 1e-9)
    return [f"{low_number + index * size:g}" for index in range(steps + 1)]


def _spaced(low: float, high: float, count: int) -> list[float]:
    return [low] if count < 2 else [low + (high - low) * index / (count - 1) for index in range(count)]


def _is_number(field: str) -> bool:
    return field in ranges() or "." in field


def _is_whole(field: str) -> bool:
    low = ranges().get(field, (0.0, 0.0))[0]
    return isinstance(low, int) if field in ranges() else field.partition(".")[2] in WHOLE_IN_PARTS


def _value(field: str, text: str) -> Any:
    """A value of a field from its text; "none" is None."""
    if field in WORDS:
        return text
    if text.lower() in ("none", "off"):
        return None
    if field in FILES:
        return text
    if field in ("size", "seed_size"):
        sides = text.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() for side in sides):
            raise RequestError(f"{field} has {text!r}; sizes are width x height, such as 512x768", field)
        return int(sides[0]), int(sides[1])
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float) if _is_number(field) else ():
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _apply(values: dict[str, Any], axis: Axis, index: int) -> None:
    """Puts one value of an axis into a request's."""
    field, value = axis.field, axis.values[index]
    part, dot, name = field.partition(".")
    if field in WORDS:
        _replace_words(values, str(axis.values[0]), str(value))
    elif field in FILES:
        values[FILES[field]] = [] if value is None else [_file(field, str(value))]
    elif field == "size":
        values["width"], values["height"] = value or (None, None)
    elif dot:
        values[part] = {**(values.get(part) or {}), name: value}
        if part == "hires" and name in ("scale", "size"):
            values[part].pop("size" if name == "scale" else "scale", None)
    else:
        values[field] = value


def _file(field: str, text: str) -> Sequence[Any] | Mapping[str, Any]:
    """A LoRA with its weight, or an embedding with its word, from `name:0.5`."""
    name, colon, rest = text.rpartition(":")
    if not colon:
        return [text]
    if field == "embedding":
        return [name, rest]
    try:
        return [name, float(rest)]
    except ValueError:
        return [text]


def _replace_words(values: dict[str, Any], search: str, replacement: str) -> None:
    """Prompt search and replace. Raises RequestError if what is searched for stands nowhere."""
    if not any(search in values.get(name, "") for name in WORDS):
        raise RequestError(f"{search!r}, the first value of the prompt's axis, stands in neither prompt", "prompt")
    for name in WORDS:
        values[name] = values.get(name, "").replace(search, replacement)
