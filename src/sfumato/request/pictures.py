"""The parts of a request about what pictures begin from and how start pictures are fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sfumato.errors import RequestError
from sfumato.request.checks import check_integer, checked_number
from sfumato.request.parts import checked_part

SEED_LIMIT = 2**64  # what a torch generator takes; ComfyUI's range too
SIDE_RANGE = (16, 8192)  # pixels; 16 is two latent cells, 8192 is where the largest tiled pictures end

ResizeMode = Literal["crop", "stretch", "fill"]
"""How a start picture takes another size: cropped to fill it, stretched, or whole with its edges drawn out."""

MaskedContent = Literal["original", "fill", "noise", "nothing"]
"""What is where a mask repaints before noise is added: the picture, the colours around, noise, an empty latent."""


@dataclass(frozen=True)
class Variation:
    """A little of another seed's start noise: 0 is the request's own picture, 1 that of `seed`; a random one if None.

    Picture i of a request uses `seed` + i, and all of them the request's seed. Raises RequestError.
    """

    strength: float
    seed: int | None = None

    def __post_init__(self) -> None:
        strength = checked_number("variation", self.strength, 0.0, 1.0)
        if strength is None:
            raise RequestError("variation has no strength; it must be a number from 0 to 1", "variation")
        object.__setattr__(self, "strength", strength)
        check_integer("variation", self.seed, 0, SEED_LIMIT - 1)

    def to_dict(self) -> dict[str, Any]:
        """The variation as JSON values."""
        return {"strength": self.strength} | ({} if self.seed is None else {"seed": self.seed})


def checked_variation(value: object) -> Variation | None:
    """What stands for a variation: one, a strength, or strength and seed. Raises RequestError."""
    return None if value is None else checked_part(value, Variation, "variation", "a strength, or strength and seed")


def checked_size(name: str, value: object) -> tuple[int, int] | None:
    """A pair of a width and a height in pixels. Raises RequestError that names the field."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    if len(pair) != 2:
        raise RequestError(f"{name} is {value!r}; it must be a width and a height in pixels", name)
    for side in pair:
        check_integer(name, side, *SIDE_RANGE)
        if side is None:
            raise RequestError(f"{name} is {value!r}; it must be a width and a height in pixels", name)
    return pair[0], pair[1]
