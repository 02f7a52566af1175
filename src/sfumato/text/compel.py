"""Weights in the dialect of compel, which InvokeAI and many scripts over diffusers use.

A word with `+` behind it is 1.1 times as strong, with `-` 0.9 times, more of them multiply: `dog++` is 1.21. Several
words stand in parentheses or double quotes, with `+`, `-` or a number right behind them: `(a red dog)1.3`, `"a dog"--`;
nested weights multiply. `\\(`, `\\)` and `\\"` are the characters themselves. A whole prompt may be
`("a", "b").blend(0.7, 0.3)`, whose parts are mixed into one, or `("a", "b").and(1, 0.5)`, whose parts follow one
another in chunks of their own.

Linear in the length of the prompt, and without recursion. compel's `.swap()` and `withLora()` are refused.
"""

import re
from itertools import groupby
from typing import Literal

from sfumato.errors import PromptError
from sfumato.text.spans import Break, Mixture, Span, rounded

PLUS, MINUS = 1.1, 0.9  # compel, prompt_parser.py: attention_plus_base, attention_minus_base

_WORD = r"(?>(?:\\[()\",.+=-]|[+-](?![\s()\",.+=-]|\Z)|[^\s()\",.+=-])+)"
_WEIGHTED_WORD = re.compile(rf"({_WORD})(\++|-+|\.attend\((\++|-+|[\d.]+)\))")
_FREE_WORD = re.compile(r"\S+")  # at the top, whatever is in it
_INNER_WORD = re.compile(rf"{_WORD}|\S")  # within brackets
_OPERATOR = re.compile(r"(\++|-+|\d+\.\d*|\.\d+|\d+)|\.attend\((\++|-+|[\d.]+)\)|")
_MARK = re.compile(r'\\[()"]|[()"]')
_ESCAPED = re.compile(r'\\([()"])')
_REFUSED = re.compile(r"\.swap\(|\b(?:with|use)Lora\(")
_MIXED = re.compile(r"\.(blend|and|add)\(([^()]*)\)\s*\Z")
_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")


def parse_compel(text: str) -> list[Span | Break]:
    """Spans of a prompt in the compel dialect that is not mixed of several.

    Raises PromptError for a weight larger than LARGEST_WEIGHT or no number, and for `.swap()` and `withLora()`.
    """
    if (refused := _REFUSED.search(text)) is not None:
        raise PromptError(
            f"The prompt has {refused[0]}…), which is not supported; give LoRAs with --lora, and escape the "
            "parenthesis as \\( if it is meant as text.",
            field="prompt",
        )
    return _spans(text, 0, len(text), _brackets(text))


def mixture_compel(text: str) -> Mixture:
    """The parts that a prompt is mixed of; most are one. Raises PromptError as `parse_compel` does."""
    start = _SPACE.match(text).end()  # type: ignore[union-attr]
    brackets = _brackets(text)
    close = brackets.get(start) if text[start : start + 1] == "(" else None
    found = None if close is None else _MIXED.match(text, close + 1)
    if close is None or found is None:
        return Mixture((tuple(parse_compel(text)),))
    parts = [tuple(_spans(text, *bounds, brackets)) for bounds in _parts(text, start + 1, close, brackets)]
    weights, normalized = _weights(found[2], len(parts))
    kind: Literal["and", "blend"] = "blend" if found[1] == "blend" else "and"
    if kind == "blend" and normalized:
        total = sum(weights)
        if not total:
            raise PromptError("The weights of .blend() add up to 0; change them.", field="prompt")
        weights = tuple(weight / total for weight in weights)
    return Mixture(tuple(parts), weights, kind)


def _brackets(text: str) -> dict[int, int]:
    """Where each parenthesis and quote that is closed is closed, by where it opens."""
    closed: dict[int, int] = {}
    still_open: list[int] = []
    quote: int | None = None
    for match in _MARK.finditer(text):
        mark, place = match[0], match.start()
        if mark == '"':
            if quote is not None:
                closed[quote] = place
            quote = place if quote is None else None
        elif mark == "(":
            still_open.append(place)
        elif mark == ")" and still_open:
            closed[still_open.pop()] = place
    return closed


def _spans(text: str, start: int, end: int, brackets: dict[int, int]) -> list[Span | Break]:
    """The spans of a part of the text; neighbours of one weight are one span."""
    pieces: list[tuple[str, float]] = []
    frames: list[tuple[int, int, float]] = []  # where the bracket closes, where reading goes on, the weight around
    place, weight = start, 1.0
    while place < end or frames:
        if frames and place == frames[-1][0]:
            _, place, weight = frames.pop()
            continue
        limit = frames[-1][0] if frames else end
        close = brackets.get(place, limit)
        if text[place].isspace():
            place += 1
        elif close < limit:
            operator = _OPERATOR.match(text, close + 1, limit)
            assert operator is not None
            frames.append((close, operator.end(), weight))
            weight *= _factor(operator[1] or operator[2])
            place += 1
        elif (found := _WEIGHTED_WORD.match(text, place, limit)) is not None:
            pieces.append((found[1], weight * _factor(found[3] or found[2])))
            place = found.end()
        else:
            found = (_INNER_WORD if frames else _FREE_WORD).match(text, place, limit)
            assert found is not None
            pieces.append((found[0], weight))
            place = found.end()
    weighed = [(_ESCAPED.sub(r"\1", piece), 1.0 if each == 1.0 else rounded(each, piece)) for piece, each in pieces]
    runs = groupby(weighed, key=lambda item: item[1])
    return [Span(" ".join(piece for piece, _ in run), each) for each, run in runs]


def _factor(operator: str | None) -> float:
    if not operator:
        return 1.0
    if operator[0] in "+-":
        return float((PLUS if operator[0] == "+" else MINUS) ** min(len(operator), 1000))  # enough to be refused
    try:
        return float(operator)
    except ValueError:
        raise PromptError(
            f"The prompt has a weight that is no number: {operator[:30]!r}. Write it like (words)1.2.", field="prompt"
        ) from None


def _parts(text: str, start: int, end: int, brackets: dict[int, int]) -> list[tuple[int, int]]:
    """Where the parts of a mixture begin and end, between commas; the quotes around a part are left out."""
    parts, place, begin = [], start, start
    while place < end:
        if text[place] == ",":
            parts.append((begin, place))
            begin = place + 1
        place = brackets.get(place, place) + 1
    parts.append((begin, end))
    return [_unquoted(text, *part, brackets) for part in parts]


def _unquoted(text: str, start: int, end: int, brackets: dict[int, int]) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    quoted = start < end and text[start] == '"' and brackets.get(start) == end - 1
    return (start + 1, end - 1) if quoted else (start, end)


def _weights(options: str, count: int) -> tuple[tuple[float, ...], bool]:
    """The weights of a mixture's parts, and whether they are to add up to 1."""
    given = [option.strip() for option in options.split(",") if option.strip()]
    normalized = "no_normalize" not in given
    given = [option for option in given if option != "no_normalize"]
    if any(not _NUMBER.fullmatch(option) for option in given) or len(given) not in (0, count):
        raise PromptError(
            f"The prompt mixes {count} parts with the weights ({options.strip()[:60]}); there must be a number for "
            "each, or none at all.",
            field="prompt",
        )
    return tuple(float(option) for option in given) or (1.0,) * count, normalized
