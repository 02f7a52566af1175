"""The parts of a picture that prompts of their own are for, as values of a request."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.errors import RequestError
from sfumato.request.checks import check_text, checked_name, checked_number

Area = tuple[float, float, float, float]

NAMED: dict[str, Area] = {
    "left": (0.0, 0.0, 0.5, 1.0),
    "right": (0.5, 0.0, 0.5, 1.0),
    "top": (0.0, 0.0, 1.0, 0.5),
    "bottom": (0.0, 0.5, 1.0, 0.5),
    "middle": (0.25, 0.25, 0.5, 0.5),
    "top left": (0.0, 0.0, 0.5, 0.5),
    "top right": (0.5, 0.0, 0.5, 0.5),
    "bottom left": (0.0, 0.5, 0.5, 0.5),
    "bottom right": (0.5, 0.5, 0.5, 0.5),
}
"""Areas that have a name."""

MOST = 16  # regions of a picture; each is asked for in every step
_NUMBER = r"(\d*\.?\d+)"
_AREA = re.compile(rf"\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*")
_WEIGHT = re.compile(r"\s*(\d*\.?\d+)\s*")
FORM = "left, top, width and height from 0 to 1, a name such as 'left' or 'top right', or a mask picture"


@dataclass(frozen=True)
class Region:
    """A prompt for a part of a picture: an `area` (left, top, width, height; 1 is the whole picture) or a `mask`.

    A mask is a path, or `sha256:...` of a picture that is handed over; white is where the prompt counts, grey where it
    counts in part. `weight`, 0 to 1, is how much it counts there; the rest is the request's own prompt. Where regions
    overlap they share the place. An area may be one of `NAMED`. Raises RequestError.
    """

    prompt: str
    area: Area | None = None
    mask: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_text("regions", self.prompt)
        object.__setattr__(self, "area", _checked_area(self.area))
        object.__setattr__(self, "mask", checked_name("regions", self.mask))
        weight = checked_number("regions", self.weight, 0.0, 1.0)
        if (self.area is None) == (self.mask is None) or weight is None:
            raise RequestError(f"regions has {self.prompt[:40]!r} for no one place; it needs {FORM}", "regions")
        object.__setattr__(self, "weight", weight)

    def __str__(self) -> str:
        """As the command line takes it."""
        place = next((name for name, area in NAMED.items() if area == self.area), None)
        place = place or (self.mask if self.area is None else ",".join(f"{side:g}" for side in self.area))
        weight = "" if self.weight == 1 else f"@{self.weight:g}"
        return f"{place}{weight}: {self.prompt}"

    def to_dict(self) -> dict[str, Any]:
        """The region as JSON values."""
        place = {"mask": self.mask} if self.area is None else {"area": list(self.area)}
        return {"prompt": self.prompt, **place, "weight": self.weight}


def _checked_area(area: object) -> Area | None:
    if area is None:
        return None
    if isinstance(area, str):
        if area not in NAMED:
            raise RequestError(f"regions has the area {area!r}; it must be {FORM}", "regions")
        return NAMED[area]
    sides = tuple(area) if isinstance(area, Sequence) else ()
    try:
        left, top, width, height = (checked_number("regions", side, 0.0, 1.0) for side in sides)
    except (ValueError, RequestError):
        left = top = width = height = None
    if left is None or top is None or not width or not height or left + width > 1 + 1e-9 or top + height > 1 + 1e-9:
        raise RequestError(f"regions has the area {area!r}; it must be {FORM}, within the picture", "regions")
    return left, top, width, height


def checked_regions(value: object) -> tuple[Region, ...]:
    """What stands for regions as a tuple of them. Raises RequestError that names what is none."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) > MOST:
        raise RequestError(f"regions is {value!r:.200}; it must be a list of at most {MOST} regions", "regions")
    return tuple(_checked_region(each) for each in value)


def _checked_region(value: object) -> Region:
    if isinstance(value, Region):
        return value
    try:
        if isinstance(value, Mapping):
            return Region(**value)
    except TypeError:  # other fields
        pass
    raise RequestError(f"regions has {value!r:.200}; each is a prompt with an area or a mask, and a weight", "regions")


def parse_region(text: str) -> Region:
    """A region from `PLACE[@WEIGHT]: PROMPT`, where a place is as in `Region`. Raises RequestError."""
    place, colon, prompt = text.partition(": ")
    if not colon:
        raise RequestError(f"a region is {text[:60]!r}; write PLACE: PROMPT, the place {FORM}", "regions")
    place, _, weight = place.strip().partition("@")
    number = _WEIGHT.fullmatch(weight) if weight else None
    if weight and number is None:
        raise RequestError(f"a region has the weight {weight!r}; it must be a number from 0 to 1", "regions")
    sides = _AREA.fullmatch(place)
    share = 1.0 if number is None else float(number[1])
    if place in NAMED:
        return Region(prompt.strip(), NAMED[place], weight=share)
    if sides is not None:
        left, top, width, height = map(float, sides.groups())
        return Region(prompt.strip(), (left, top, width, height), weight=share)
    return Region(prompt.strip(), mask=place, weight=share)
