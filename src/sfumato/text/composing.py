"""Prompts of several, in the dialect of stable-diffusion-webui: `a AND b :0.5` is asked twice, b with half the weight.

What each prompt adds to the answer without any is added up. Liu et al. 2022 (composable diffusion), equation 11.
"""

import re
from dataclasses import dataclass

from sfumato.text.spans import rounded

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*")


@dataclass(frozen=True)
class Part:
    """One of the prompts that a picture is asked for, and how much of what it adds counts."""

    text: str
    weight: float = 1.0


def parts(text: str) -> tuple[Part, ...]:
    """The prompts between the ANDs, without the white space around them; one is the whole text as it stands.

    A deviation from stable-diffusion-webui: a number behind a colon at the end of a prompt without AND is text, as in
    "at 12:30"; there it would be its weight. Raises PromptError for a weight larger than LARGEST_WEIGHT.
    """
    pieces = _AND.split(text)
    return tuple(_part(piece.strip()) for piece in pieces) if len(pieces) > 1 else (Part(text),)


def _part(text: str) -> Part:
    words, colon, number = text.rpartition(":")
    found = _WEIGHT.fullmatch(number) if colon else None
    return Part(text) if found is None else Part(words.rstrip(), rounded(float(found[1]), text))
