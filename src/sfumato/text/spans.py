"""The parts of a prompt that was read, in any dialect: runs of text with a weight, and breaks."""

from dataclasses import dataclass
from typing import Literal

from sfumato.errors import PromptError

LARGEST_WEIGHT = 1e4  # ours: pictures dissolve above 2; beyond this, float16 states overflow


@dataclass(frozen=True)
class Span:
    """A run of text and how strong it is; 1 is as it stands."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Break:
    """The place where a new chunk begins."""


@dataclass(frozen=True)
class Mixture:
    """A prompt as the parts that it is made of; most have one.

    "and": they follow one another, in chunks of their own. "blend": they are added up. `weights` are theirs, all 1 if
    they are not given.
    """

    parts: tuple[tuple[Span | Break, ...], ...]
    weights: tuple[float, ...] = (1.0,)
    kind: Literal["and", "blend"] = "and"


def rounded(weight: float, text: str) -> float:
    """A weight to 12 significant digits, so that it does not depend on the order of multiplication.

    Raises PromptError, which shows the text, if it is larger than LARGEST_WEIGHT or no number.
    """
    if not abs(weight) <= LARGEST_WEIGHT:  # also catches nan, from 0 x inf
        shown = text if len(text) <= 30 else text[:30] + "…"
        raise PromptError(
            f"The weight of {shown!r} in the prompt is {weight:.3g}; at most {LARGEST_WEIGHT:g} is possible, and "
            "pictures dissolve above 2. Use fewer brackets.",
            field="prompt",
        )
    return float(f"{weight:.12g}")
