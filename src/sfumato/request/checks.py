"""Checks of single values, for requests and their parts: each names the field, the value and what would be right."""

import difflib
import math
import os
from collections.abc import Sequence
from typing import get_args

from sfumato.errors import PromptError, RequestError


def nearest(name: str, known: Sequence[str], what: str = "fields") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"the {what} are {', '.join(known)}"


def check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{name} is {text!r}; it must be text", name)
    if "\0" in text:
        raise PromptError(f"{name} holds a NUL character at place {text.index(chr(0))}; take it out", name)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"{name} holds half of a surrogate pair, which is no character; take it out", name)


def checked_prompts(prompt: object) -> str | tuple[str, ...]:
    if isinstance(prompt, str):
        check_text("prompt", prompt)
        return prompt
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise PromptError(f"prompt is {prompt!r}; it must be text, or a list of texts", "prompt")
    if not prompt:
        raise PromptError("prompt is an empty list; it must hold at least one text", "prompt")
    for text in prompt:
        check_text("prompt", text)
    return tuple(prompt)


def check_choice(name: str, value: object, choices: object, *, optional: bool = True) -> None:
    """Raise RequestError unless the value is one of a Literal's, or None where it is optional."""
    known = get_args(choices)
    if value not in known and not (optional and value is None):
        raise RequestError(f"{name} is {value!r}; it must be one of {', '.join(known)}", name)


def check_integer(name: str, value: object, low: int, high: int, *, optional: bool = True) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}; it must be a whole number from {low} to {high}", name)


def checked_number(name: str, value: object, low: float, high: float) -> float | None:
    if value is None:
        return None
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        raise RequestError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}", name)
    return float(value)  # type: ignore[arg-type]


def checked_name(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise RequestError(f"{name} is {value!r}; it must be a name or a path", name)
    return value


def checked_names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RequestError(f"{name} is {value!r}; it must be a list of names", name)
    for each in value:
        if not isinstance(each, str) or not each:
            raise RequestError(f"{name} has {each!r}; it must be a list of names", name)
        check_text(name, each)
    return tuple(value)


def checked_interval(value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    try:
        first, last = (checked_number("guidance_interval", bound, 0.0, 1.0) for bound in pair)
    except (ValueError, RequestError):
        first = last = None
    if first is None or last is None or first > last:
        raise RequestError(
            f"guidance_interval is {value!r}; it must be two numbers from 0 to 1, the first not above the second",
            "guidance_interval",
        )
    return first, last
