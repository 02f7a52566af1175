"""A job as a value: what to draw, with which settings; checked when made, and the same through JSON.

`None` means "what suits the model"; `sfumato.job.resolve` replaces every None by a concrete value.
"""

import difflib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from sfumato.errors import PromptError, RequestError

NoiseMode = Literal["keyed", "sequential", "philox"]

SEED_LIMIT = 2**64  # what a torch generator takes; ComfyUI's range too
SIDE_RANGE = (16, 8192)  # pixels; 16 is two latent cells, 8192 is where the largest tiled pictures end

_INTEGERS: dict[str, tuple[int, int]] = {
    "seed": (0, SEED_LIMIT - 1),
    "steps": (1, 1000),  # a schedule has 1000 timesteps
    "width": SIDE_RANGE,
    "height": SIDE_RANGE,
    "count": (1, 10_000),
    "batch": (1, 256),
    "clip_skip": (0, 64),  # whether the model has so many layers is seen when it is loaded
}
_NUMBERS: dict[str, tuple[float, float]] = {
    "guidance": (0.0, 100.0),
    "guidance_rescale": (0.0, 1.0),
    "eta": (0.0, 1.0),
    "strength": (0.0, 1.0),
    "mask_blur": (0.0, 256.0),
}
_NAMES = ("model", "vae", "sampler", "spacing", "image", "mask")
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
        object.__setattr__(self, "name", _checked_name("loras", self.name))
        for field, given in (("weight", self.weight), ("text_weight", self.text_weight)):
            value = self.weight if given is None and field == "text_weight" else given
            checked = _checked_number("loras", value, *_LORA_WEIGHT)
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
        object.__setattr__(self, "name", _checked_name("embeddings", self.name))
        if self.name is None or not isinstance(self.word, str) or len(self.word.split()) > 1:
            raise RequestError(
                f"embeddings has {(self.name, self.word)!r}; an embedding is a name, and a word without white space",
                "embeddings",
            )
        _check_text("embeddings", self.word)

    def __str__(self) -> str:
        """As the command line takes it."""
        return f"{self.name}:{self.word}" if self.word else self.name

    def to_dict(self) -> dict[str, Any]:
        """The embedding as JSON values."""
        return {"name": self.name, "word": self.word}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to draw. Refuses wrong values with a RequestError that names the field, the value and the range.

    prompt          one text or several; several make `count` pictures each, and picture i of all uses seed + i
    image, mask     paths, white in the mask = repaint; None or `sha256:...` of the upright pixels when the pictures are
                    handed over beside the request, which is also what a picture's metadata has here
    width, height   pixels; mask_blur too
    strength        the share of the steps that is run on a start picture: 1 ignores it, 0 returns it
    guidance_interval   (first, last): guidance is 1 outside of these parts of the noise schedule, from 0 to 1
    eta             the share of fresh noise in stochastic samplers
    clip_skip       how many of the text encoder's last layers are left out: 1 is what A1111 calls 2
    batch           how many pictures go through the network together
    strict          one by one, so that a picture has the same bytes alone and in company
    loras           what is merged into the model; a name, or (name, weight[, text_weight]), stands for a `Lora`
    embeddings      files of new words that prompts may use; a name, or (name, word), stands for an `Embedding`
    """

    prompt: str | Sequence[str] = ""
    negative_prompt: str = ""
    model: str | None = None
    vae: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    guidance_rescale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    eta: float | None = None
    sampler: str | None = None
    spacing: str | None = None
    width: int | None = None
    height: int | None = None
    count: int = 1
    batch: int | None = None
    clip_skip: int | None = None
    image: str | None = None
    strength: float | None = None
    mask: str | None = None
    mask_blur: float | None = None
    noise: NoiseMode = "keyed"
    strict: bool = False
    loras: Sequence[Lora] = ()
    embeddings: Sequence[Embedding] = ()

    def __post_init__(self) -> None:
        _set(self, "prompt", _checked_prompts(self.prompt))
        _check_text("negative_prompt", self.negative_prompt)
        for name, (low, high) in _INTEGERS.items():
            _check_integer(name, getattr(self, name), low, high)
        for name, (least, most) in _NUMBERS.items():
            _set(self, name, _checked_number(name, getattr(self, name), least, most))
        for name in _NAMES:
            _set(self, name, _checked_name(name, getattr(self, name)))
        _set(self, "guidance_interval", _checked_interval(self.guidance_interval))
        _set(self, "loras", checked_loras(self.loras))
        _set(self, "embeddings", checked_embeddings(self.embeddings))
        if self.noise not in get_args(NoiseMode):
            raise RequestError(f"noise is {self.noise!r}; it must be one of {', '.join(get_args(NoiseMode))}", "noise")
        if not isinstance(self.strict, bool):
            raise RequestError(f"strict is {self.strict!r}; it must be true or false", "strict")
        self._check_together()

    def _check_together(self) -> None:
        if self.strict and self.batch not in (None, 1):
            raise RequestError(
                f"batch is {self.batch} with strict, which makes pictures one by one; leave out one of them", "batch"
            )
        if self.total > 10_000:
            raise RequestError(
                f"count is {self.count} for each of {len(self.prompts)} prompts, {self.total} pictures in all; "
                "a request makes at most 10000",
                "count",
            )
        if self.seed is not None and self.seed + self.total > SEED_LIMIT:
            raise RequestError(
                f"seed is {self.seed} for {self.total} pictures; the last picture's seed must be below 2^64", "seed"
            )

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, one or several."""
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)

    @property
    def total(self) -> int:
        """How many pictures the request makes."""
        return self.count * len(self.prompts)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; those that are at their default None are left out, no LoRAs or embeddings too."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["loras"] = [lora.to_dict() for lora in self.loras] or None
        values["embeddings"] = [embedding.to_dict() for embedding in self.embeddings] or None
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    def to_json(self) -> str:
        """The request as one JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Request":
        """The request of JSON values. An unknown field is a RequestError that names the nearest one."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise RequestError(f"there is no field {name!r}; {_nearest(str(name), known)}", str(name))
        given = dict(values)
        if isinstance(given.get("prompt"), list):
            given["prompt"] = tuple(given["prompt"])
        if isinstance(given.get("guidance_interval"), list):
            given["guidance_interval"] = tuple(given["guidance_interval"])
        for name in ("prompt", "negative_prompt", "count", "noise", "strict", "loras", "embeddings"):
            if name in given and given[name] is None:
                raise RequestError(f"{name} is null; leave it out for the default", name)
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """The request in a JSON text. Raises RequestError if it is not a JSON object of known fields."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the request is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise RequestError(f"the request is a JSON {type(values).__name__}; it must be an object of fields")
        return cls.from_dict(values)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"the fields are {', '.join(known)}"


def _set(request: Request, name: str, value: object) -> None:
    object.__setattr__(request, name, value)  # the way in for a frozen dataclass that normalises its own fields


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{name} is {text!r}; it must be text", name)
    if "\0" in text:
        raise PromptError(f"{name} holds a NUL character at place {text.index(chr(0))}; take it out", name)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"{name} holds half of a surrogate pair, which is no character; take it out", name)


def _checked_prompts(prompt: object) -> str | tuple[str, ...]:
    if isinstance(prompt, str):
        _check_text("prompt", prompt)
        return prompt
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise PromptError(f"prompt is {prompt!r}; it must be text, or a list of texts", "prompt")
    if not prompt:
        raise PromptError("prompt is an empty list; it must hold at least one text", "prompt")
    for text in prompt:
        _check_text("prompt", text)
    return tuple(prompt)


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if value is None and name != "count":
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}; it must be a whole number from {low} to {high}", name)


def _checked_number(name: str, value: object, low: float, high: float) -> float | None:
    if value is None:
        return None
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        raise RequestError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}", name)
    return float(value)  # type: ignore[arg-type]


def _checked_name(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise RequestError(f"{name} is {value!r}; it must be a name or a path", name)
    return value


def _checked_interval(value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    try:
        first, last = (_checked_number("guidance_interval", bound, 0.0, 1.0) for bound in pair)
    except (ValueError, RequestError):
        first = last = None
    if first is None or last is None or first > last:
        raise RequestError(
            f"guidance_interval is {value!r}; it must be two numbers from 0 to 1, the first not above the second",
            "guidance_interval",
        )
    return first, last


F = TypeVar("F", Lora, Embedding)


def checked_loras(value: object) -> tuple[Lora, ...]:
    """What stands for LoRAs as a tuple of them. Raises RequestError that names what is none."""
    return _checked_files(value, Lora, "loras", "a name, or name, weight and text_weight")


def checked_embeddings(value: object) -> tuple[Embedding, ...]:
    """What stands for embeddings as a tuple of them. Raises RequestError that names what is none."""
    return _checked_files(value, Embedding, "embeddings", "a name, or name and word")


def _checked_files(value: object, kind: type[F], field: str, form: str) -> tuple[F, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RequestError(f"{field} is {value!r}; it must be a list, each {form}", field)
    return tuple(_checked_file(each, kind, field, form) for each in value)


def _checked_file(value: object, kind: type[F], field: str, form: str) -> F:
    if isinstance(value, kind):
        return value
    try:
        if isinstance(value, Mapping):
            return kind(**value)
        return kind(*(value if isinstance(value, list | tuple) else (value,)))
    except TypeError:  # other fields, or more of them
        raise RequestError(f"{field} has {value!r}; each is {form}", field) from None
