"""From the body of OpenAI's image endpoints to a Request, and how its pictures are to be handed back.

Beside OpenAI's own fields a body may have those of a Request (`extra_body` in its clients): seed, steps, guidance,
negative_prompt, sampler, ... What OpenAI knows and has no meaning here (quality, style, moderation, ...) is read and
left; a field that nobody knows is refused, as OpenAI does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from sfumato.errors import RequestError
from sfumato.request import Request
from sfumato.server.problems import Problem

Endpoint = Literal["generations", "edits", "variations"]

VARIATION_STRENGTH = 0.7  # enough to see another picture, too little to lose the first one
FORMATS = ("png", "jpeg", "webp")
MOST = 10  # of OpenAI's `n`
LONGEST = 32_000  # characters of a prompt, OpenAI's for its gpt-image models

# OpenAI's own models, which programs name without being asked: the server's own, unless it has one of this name
OPENAIS = re.compile(r"dall-e-[23]|gpt-image-[\w.-]+|chatgpt-image-latest")

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_OWN = {"prompt", "model", "n", "size", "response_format", "output_format", "output_compression", "background"}
_OWN |= {"stream", "partial_images", "image", "image[]", "mask"}
# theirs that say nothing about a picture of ours
_LEFT = frozenset({"quality", "style", "moderation", "user", "safety_identifier", "input_fidelity"})
# ours that a body cannot set, because it says the same in OpenAI's words or because they are the server's own
_TAKEN = frozenset({"prompt", "model", "image", "mask", "count", "width", "height"})
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True)
class Order:
    """What a body asks for: the request, and how its pictures are handed back."""

    request: Request
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: str = "png"
    compression: int = 100
    stream: bool = False
    partial_images: int = 0


def wrong(param: str, message: str, code: str = "invalid_value") -> Problem:
    """The problem of a parameter, 400; to be raised."""
    return Problem(400, code, message, field=param)


def lower(body: Mapping[str, Any], pictures: Mapping[str, str], endpoint: Endpoint) -> Order:
    """The order of a body, of JSON values or of a form's texts. `pictures` are the ids of "image" and "mask".

    Raises Problem 400 that names the parameter.
    """
    body = {name: value for name, value in body.items() if value is not None}
    check_known(body)
    if body.get("background") == "transparent":
        raise wrong("background", "Transparent backgrounds are not supported; pictures are opaque.")
    output_format = choice(body, "output_format", FORMATS, "png")
    values: dict[str, Any] = {
        **own_fields(body),
        "prompt": prompt_of(body, endpoint),
        "model": text_of(body, "model"),
        "count": whole(body, "n", 1, 1, MOST),
        **size_of(body),
    }
    if endpoint != "generations":
        if "image" not in pictures:
            raise wrong("image", "Missing required parameter: 'image'.", "missing_required_parameter")
        values |= pictures
        if endpoint == "variations":
            values.setdefault("strength", VARIATION_STRENGTH)
    try:
        request = Request.from_dict({name: value for name, value in values.items() if value is not None})
    except RequestError as error:
        raise as_openai(error) from error
    return Order(
        request,
        choice(body, "response_format", ("b64_json", "url"), "b64_json"),  # type: ignore[arg-type]
        output_format,
        whole(body, "output_compression", 100, 0, 100),
        flag(body, "stream"),
        whole(body, "partial_images", 0, 0, 3),
    )


def as_openai(error: RequestError) -> Problem:
    """A problem that a request found, under OpenAI's name of the parameter."""
    name = {"count": "n", "width": "size", "height": "size"}.get(error.field or "", error.field)
    return Problem(400, "invalid_value", str(error), field=name)


def check_known(body: Mapping[str, Any]) -> None:
    """Raise the problem of a parameter that neither OpenAI nor a request has."""
    ours = {field.name for field in fields(Request)} - _TAKEN
    for name in body:
        if name not in _OWN and name not in _LEFT and name not in ours:
            raise wrong(name, f"Unknown parameter: '{name}'.", "unknown_parameter")


def own_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that a body has beside OpenAI's; numbers of a form are text."""
    values = {}
    for field in fields(Request):
        if field.name in body and field.name not in _TAKEN:
            values[field.name] = unwritten(body[field.name], str(field.type))
    return values


def unwritten(value: Any, kind: str) -> Any:
    """A form's text as the number or the truth that the field is; what is no such text stays, for the request."""
    if not isinstance(value, str) or "str" in kind:
        return value
    if "bool" in kind and value.lower() in (*_TRUE, *_FALSE):
        return value.lower() in _TRUE
    for number in (int, float):
        if number.__name__ in kind:
            try:
                return number(value)
            except ValueError:
                continue
    return value


def prompt_of(body: Mapping[str, Any], endpoint: Endpoint) -> str:
    """The prompt; a variation may have one too."""
    prompt = body.get("prompt", "")
    if not isinstance(prompt, str):
        raise wrong("prompt", "Invalid type for 'prompt': expected a string.", "invalid_type")
    if not prompt.strip() and endpoint != "variations":
        raise wrong("prompt", "Missing required parameter: 'prompt'.", "missing_required_parameter")
    if len(prompt) > LONGEST:
        raise wrong("prompt", f"Invalid 'prompt': at most {LONGEST} characters; it has {len(prompt)}.", "too_long")
    return prompt


def size_of(body: Mapping[str, Any]) -> dict[str, int]:
    """Width and height; "auto" is what suits the model, or the start picture."""
    size = body.get("size", "auto")
    if size == "auto":
        return {}
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        raise wrong("size", f"Invalid value: {size!r}. It must be 'auto', or width x height such as '512x512'.")
    return {"width": int(found[1]), "height": int(found[2])}


def text_of(body: Mapping[str, Any], name: str) -> str | None:
    """A text; "" is none."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(name, f"Invalid type for '{name}': expected a string.", "invalid_type")
    return value or None


def choice(body: Mapping[str, Any], name: str, known: tuple[str, ...], default: str) -> str:
    """One of a few words."""
    value = body.get(name, default)
    if value not in known:
        raise wrong(name, f"Invalid value: {value!r}. Supported values are: {', '.join(map(repr, known))}.")
    return str(value)


def whole(body: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A whole number in a range, perhaps a form's text."""
    value = body.get(name, default)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(name, f"Invalid '{name}': expected a whole number from {low} to {high}, got {value!r}.")
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """True or false, perhaps a form's text."""
    value = body.get(name, False)
    if isinstance(value, str) and value.lower() in (*_TRUE, *_FALSE):
        return value.lower() in _TRUE
    if not isinstance(value, bool):
        raise wrong(name, f"Invalid type for '{name}': expected a boolean.", "invalid_type")
    return value
