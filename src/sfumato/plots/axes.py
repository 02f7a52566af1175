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
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sfumato.errors import RequestError
from sfumato.request import Request, draw_seed
from sfumato.request.texts import RANDOM, SEEDS, WORDS, field_name, field_value, is_number, is_whole, put

MOST = 2_500  # cells; a plot of 50 x 50 takes hours on anything

NOT_AXES = ("count", "batch", "image", "mask", "strict")

_NUMBER = r"[+-]?\d{1,20}(?:\.\d{0,20})?"  # what is longer is no number of a request
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(({_NUMBER})\)|\[(\d{{1,9}})\])?")


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
    if field in SEEDS:  # a cell tells its seed
        texts = [str(draw_seed()) if each == str(RANDOM) else each for each in texts]
    return Axis(field, tuple(field_value(field, each) for each in texts), tuple(texts))


def cells(request: Request, x: Axis | None = None, y: Axis | None = None, z: Axis | None = None) -> list[Cell]:
    """The cells of a plot, those with the same model next to each other. Raises RequestError.

    All have the seed of the request, which must have one, unless an axis says otherwise.
    """
    axes = (x, y, z)
    named = Counter(axis.field for axis in axes if axis is not None)
    for field, count in named.items():
        if count > 1 and field not in WORDS:  # words are replaced one after the other
            raise RequestError(f"two axes have the field {field}; each needs its own", field)
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
    field = field_name(name)
    if field in NOT_AXES:
        raise RequestError(f"{field} cannot be an axis: every cell is one picture, drawn alone", field)
    return field


def _spread(field: str, item: str) -> list[str]:
    """The values of an item that is a range, as text; any other is itself. Raises RequestError for a range of none."""
    found = _RANGE.fullmatch(item) if is_number(field) else None
    if found is None:
        return [item]
    first, last, step, count = found.groups()
    if count is not None:
        places = _counted(field, item, range(int(count)))
        spaced = _spaced(float(first), float(last), len(places))
        return [str(int(each)) if is_whole(field) else f"{each:g}" for each in spaced]
    if is_whole(field):
        stride = int(float(step or 1)) or 1
        whole = range(int(float(first)), int(float(last)) + (1 if stride > 0 else -1), stride)
        return [str(each) for each in _counted(field, item, whole)]
    low, size = float(first), float(step or 1) or 1.0
    steps = math.floor((float(last) - low) / size + 1e-9)
    return [f"{low + index * size:g}" for index in _counted(field, item, range(steps + 1))]


def _counted(field: str, item: str, values: range) -> range:
    """The values of a range, which must be some and not too many. Raises RequestError."""
    if not values:
        raise RequestError(f"{field}={item} has no values; a range that falls needs a step such as (-1)", field)
    if len(values[: MOST + 1]) > MOST:
        raise RequestError(f"{field}={item} has more than {MOST} values; at most {MOST} cells are drawn", field)
    return values


def _spaced(low: float, high: float, count: int) -> list[float]:
    return [low] if count < 2 else [low + (high - low) * index / (count - 1) for index in range(count)]


def _apply(values: dict[str, Any], axis: Axis, index: int) -> None:
    """Puts one value of an axis into a request's."""
    if axis.field in WORDS:
        _replace_words(values, str(axis.values[0]), str(axis.values[index]))
    else:
        put(values, axis.field, axis.values[index])


def _replace_words(values: dict[str, Any], search: str, replacement: str) -> None:
    """Prompt search and replace. Raises RequestError if what is searched for stands nowhere."""
    if not any(search in values.get(name, "") for name in WORDS):
        raise RequestError(f"{search!r}, the first value of the prompt's axis, stands in neither prompt", "prompt")
    for name in WORDS:
        values[name] = values.get(name, "").replace(search, replacement)
