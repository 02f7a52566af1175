"""The fields of a body as A1111's clients send them: null is as good as left out, and numbers may be text.

Fields that are not known are ignored, as A1111 does; a value that cannot be read is a problem that names its field.
"""

import math
from collections.abc import Mapping
from typing import Any

from sfumato.server.problems import Problem

TRUE, FALSE = ("true", "1", "on", "yes", "t", "y"), ("false", "0", "off", "no", "f", "n")  # pydantic's


def refuse(field: str, why: str, *, hint: str | None = None) -> Problem:
    """The problem of a field that cannot be honoured, 422; to be raised."""
    return Problem(422, f"request.{field}", f"{field} {why}", field=field, hint=hint)


class Fields:
    """Reads a body's fields. Every reader raises Problem 422, with the field's name, for a value of another kind."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body

    def has(self, name: str) -> bool:
        """Is there a value other than null?"""
        return self.body.get(name) is not None

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise refuse(name, f"is {_shown(value)}; it must be text")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number, perhaps written as text."""
        value = self.body.get(name)
        if value is None:
            return default
        try:
            read = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            read = math.nan
        if not math.isfinite(read):
            raise refuse(name, f"is {_shown(value)}; it must be a number")
        return read

    def whole(self, name: str, default: int) -> int:
        """A whole number, perhaps written as text or as 20.0; as exact as it was sent."""
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, int):
            return int(value)
        if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) < 40:
            return int(value)
        read = self.number(name, 0.0)
        if read != int(read):
            raise refuse(name, f"is {_shown(value)}; it must be a whole number")
        return int(read)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false, also as 0, 1 or a word."""
        value = self.body.get(name)
        if value is None:
            return default
        word = str(value).strip().lower()
        if not isinstance(value, bool | int | float | str) or word not in (*TRUE, *FALSE):
            raise refuse(name, f"is {_shown(value)}; it must be true or false")
        return word in TRUE

    def items(self, name: str) -> list[Any]:
        """A list."""
        value = self.body.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise refuse(name, f"is {_shown(value)}; it must be a list")
        return value

    def object(self, name: str) -> dict[str, Any]:
        """An object."""
        value = self.body.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise refuse(name, f"is {_shown(value)}; it must be an object")
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
