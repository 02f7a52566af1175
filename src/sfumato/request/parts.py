"""The parts of a request that are values themselves: files that a model is changed by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sfumato.errors import RequestError
from sfumato.request.checks import check_text, checked_name, checked_number

_LORA_WEIGHT = (-10.0, 10.0)  # beyond, nothing is left of the model; negative takes away what the LoRA adds


@dataclass(frozen=True)
class Lora:
    """A LoRA (an alias, a path, `org/name`) and how much of it counts: 1 is as it was trained, 0 not at all.

    `weight` is for the UNet, `text_weight` for the text encoders, the same if it is not given. Raises RequestError.
    """

    name: str
    weight: float = 1.0
    text_weight: float = None  # type: ignore[assignment]  # None only until __post_init__

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", checked_name("loras", self.name))
        for field, given in (("weight", self.weight), ("text_weight", self.text_weight)):
            value = self.weight if given is None and field == "text_weight" else given
            checked = checked_number("loras", value, *_LORA_WEIGHT)
            if self.name is None or checked is None:
                raise RequestError(f"loras has {(self.name, given)!r}; a LoRA is a name and a weight", "loras")
            object.__setattr__(self, field, checked)

    def __str__(self) -> str:
        """As the command line takes it."""
        text_weight = "" if self.text_weight == self.weight else f":{self.text_weight:g}"
        return f"{self.name}:{self.weight:g}{text_weight}"

    def to_dict(self) -> dict[str, Any]:
        """The LoRA as JSON values."""
        return {"name": self.name, "weight": self.weight, "text_weight": self.text_weight}


@dataclass(frozen=True)
class Embedding:
    """The embedding of a new word (an alias, a path) and the word that it has in prompts: "" is what its file says.

    Raises RequestError.
    """

    name: str
    word: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", checked_name("embeddings", self.name))
        if self.name is None or not isinstance(self.word, str) or len(self.word.split()) > 1:
            raise RequestError(
                f"embeddings has {(self.name, self.word)!r}; an embedding is a name, and a word without white space",
                "embeddings",
            )
        check_text("embeddings", self.word)

    def __str__(self) -> str:
        """As the command line takes it."""
        return f"{self.name}:{self.word}" if self.word else self.name

    def to_dict(self) -> dict[str, Any]:
        """The embedding as JSON values."""
        return {"name": self.name, "word": self.word}


F = TypeVar("F")


def checked_loras(value: object) -> tuple[Lora, ...]:
    """What stands for LoRAs as a tuple of them. Raises RequestError that names what is none."""
    return _checked_files(value, Lora, "loras", "a name, or name, weight and text_weight")


def checked_embeddings(value: object) -> tuple[Embedding, ...]:
    """What stands for embeddings as a tuple of them. Raises RequestError that names what is none."""
    return _checked_files(value, Embedding, "embeddings", "a name, or name and word")


def _checked_files(value: object, kind: type[F], field: str, form: str) -> tuple[F, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RequestError(f"{field} is {value!r}; it must be a list, each {form}", field)
    return tuple(checked_part(each, kind, field, form) for each in value)


def checked_part(value: object, kind: type[F], field: str, form: str) -> F:
    """What stands for a part as one: a part, the mapping of its fields, or their values. Raises RequestError."""
    if isinstance(value, kind):
        return value
    try:
        if isinstance(value, Mapping):
            return kind(**value)
        return kind(*(value if isinstance(value, list | tuple) else (value,)))
    except TypeError:  # other fields, or more of them
        raise RequestError(f"{field} has {value!r}; each is {form}", field) from None
