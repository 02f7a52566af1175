"""The text that AUTOMATIC1111 writes into its pictures, read and written.

    a prompt, which may span lines
    Negative prompt: which may too
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: "a, b"

The last line holds parameters if it has at least three. A value with a comma, colon or line end is a JSON string.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NEGATIVE = "Negative prompt:"
_KEY = re.compile(r"\s*(\w[\w \-/]+):[ \t]*")
_END = re.compile(r"[ \t]*(?:,|$)")
_QUOTED = re.compile(r'("(?:\\.|[^\\"])*")[ \t]*(?:,|$)')
_BARE_JSON = ("Hashes", "Civitai resources", "Civitai metadata")  # which Civitai writes without quotes
_EXACT = {"prompt": "Exact prompt", "negative_prompt": "Exact negative prompt"}
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Infotext:
    """A prompt, a negative prompt and the parameters in their order, all as text."""

    prompt: str = ""
    negative_prompt: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def format_infotext(info: Infotext) -> str:
    """The text that reads back as `info`, and that A1111 and its friends read too.

    A prompt that the grammar would misread (a line that begins with "Negative prompt:", spaces at an end) is repeated
    as a quoted parameter, so that nothing is lost. Raises ValueError with fewer than three parameters, which no reader
    would take for parameters, or with a key that the grammar has no place for.
    """
    if len(info.parameters) < 3:
        raise ValueError(f"{len(info.parameters)} parameters; an infotext needs at least three to be read as one")
    for key in info.parameters:
        if _KEY.fullmatch(f"{key}:") is None or key != key.strip() or key in _EXACT.values():
            raise ValueError(f"{key!r} cannot be a parameter's name: letters, digits, spaces, '-' and '/' only")
    text = _join(info.prompt, info.negative_prompt, info.parameters)
    if parse_infotext(text) == info:
        return text
    exact = {_EXACT["prompt"]: info.prompt, _EXACT["negative_prompt"]: info.negative_prompt}
    return _join(info.prompt, info.negative_prompt, {**info.parameters, **exact})


def parse_infotext(text: str) -> Infotext:
    """What an infotext says. Every text is one: without a line of parameters it is all prompt. Linear in length."""
    lines = text.strip().split("\n")
    parameters = _parse_parameters(lines[-1])
    if len(parameters) < 3:
        parameters = {}
    else:
        lines = lines[:-1]
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in lines:
        line = line.strip()
        if line.startswith(_NEGATIVE) and part is prompt:
            part = negative
            line = line.removeprefix(_NEGATIVE).strip()
        part.append(line)
    exact_prompt = parameters.pop(_EXACT["prompt"], None)
    exact_negative = parameters.pop(_EXACT["negative_prompt"], None)
    return Infotext(
        "\n".join(prompt) if exact_prompt is None else exact_prompt,
        "\n".join(negative) if exact_negative is None else exact_negative,
        parameters,
    )


def _join(prompt: str, negative_prompt: str, parameters: Mapping[str, str]) -> str:
    line = ", ".join(f"{key}: {_quote(value)}" for key, value in parameters.items())
    return "\n".join(part for part in (prompt, negative_prompt and f"{_NEGATIVE} {negative_prompt}", line) if part)


def _quote(value: str) -> str:
    plain = value == value.strip() and value.isprintable() and not set(value) & set(',:"{[')
    return value if plain else json.dumps(value, ensure_ascii=False)


def _parse_parameters(line: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    place = 0
    while place < len(line):
        key = _KEY.match(line, place)
        if key is None:
            place = _after_comma(line, place)
            continue
        bare_json = key[1] in _BARE_JSON and key[1] not in parameters
        parameters[key[1]], place = _parse_value(line, key.end(), bare_json=bare_json)
    return parameters


def _parse_value(line: str, start: int, *, bare_json: bool) -> tuple[str, int]:
    """The value that begins at `start`, and the place after the comma that ends it."""
    try:
        if bare_json:
            _, end = _DECODER.raw_decode(line, start)
            if _END.match(line, end):
                return line[start:end], _after_comma(line, end)
        elif quoted := _QUOTED.match(line, start):
            return str(json.loads(quoted[1])), _after_comma(line, quoted.end(1))
    except (ValueError, RecursionError):
        pass  # not JSON after all: what stands there is taken up to the next comma, as A1111 does
    end = _after_comma(line, start)
    return line[start:end].removesuffix(",").strip(), end


def _after_comma(line: str, start: int) -> int:
    comma = line.find(",", start)
    return len(line) if comma < 0 else comma + 1
