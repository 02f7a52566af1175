"""Weights in the dialect of stable-diffusion-webui.

`(x)` is 1.1 times as strong, `(x:1.3)` 1.3 times, `[x]` 1 / 1.1 times; nested weights multiply, so `((x:1.2))` is 1.32;
a bracket that is never closed counts to the end; `\\(`, `\\)`, `\\[`, `\\]` and `\\\\` are the characters themselves,
and any other backslash is left out; `BREAK` begins a new chunk.

Everything here is linear in the length of the prompt and uses no recursion.
"""

import re
from dataclasses import dataclass
from itertools import groupby

from sfumato.errors import PromptError
from sfumato.text.spans import Break, Span, rounded

EMPHASIS = 1.1  # what one pair of brackets multiplies by, or divides by: stable-diffusion-webui, prompt_parser.py


@dataclass
class _Group:
    """A bracket that was opened; its multiplier is known when it is closed."""

    square: bool
    multiplier: float


# One mark of the a1111 dialect; the group is the weight in front of a closing parenthesis.
_A1111 = re.compile(r"\\[()\[\]\\]?|[(\[]|:\s*([+-]?[.\d]+)\s*\)|[)\]]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\bBREAK\b")


def parse_a1111(text: str) -> list[Span | Break]:
    """Spans and breaks of a prompt in the a1111 dialect; neighbours of one weight are one span.

    Two deviations from stable-diffusion-webui: BREAK is honoured inside brackets too, where it would become the word
    "break" with a negative weight; and weights are rounded to 12 significant digits, so that they do not depend on the
    order of multiplication.
    Raises PromptError for a weight that is no number, or larger than LARGEST_WEIGHT.
    """
    pieces: list[tuple[str | Break, float]] = []
    products = {False: [1.0], True: [1.0]}  # for round and square brackets: those open now, multiplied up
    for event, opens in _events(text):
        if isinstance(event, _Group):
            stack = products[event.square]
            if opens:
                stack.append(stack[-1] * event.multiplier)
            else:
                stack.pop()
        else:
            pieces.append((event, products[False][-1] * products[True][-1]))
    rounded_pieces = (
        (piece, 1.0 if weight == 1.0 or isinstance(piece, Break) else rounded(weight, piece))
        for piece, weight in pieces
    )
    spans: list[Span | Break] = []
    for (weight, breaks), run in groupby(rounded_pieces, key=lambda item: (item[1], isinstance(item[0], Break))):
        if breaks:
            spans.extend(Break() for _ in run)
        elif joined := "".join(piece for piece, _ in run if isinstance(piece, str)):
            spans.append(Span(joined, weight))
    return spans


def _events(text: str) -> list[tuple[str | Break | _Group, bool]]:
    """Text, breaks, and groups where they open (True) and close (False), in order."""
    events: list[tuple[str | Break | _Group, bool]] = []
    still_open: dict[bool, list[_Group]] = {False: [], True: []}
    for match in _A1111.finditer(text):
        mark, weight = match[0], match[1]
        if mark[0] == "\\":
            events.append((mark[1:], True))
        elif mark in "([":
            square = mark == "["
            group = _Group(square, 1 / EMPHASIS if square else EMPHASIS)
            still_open[square].append(group)
            events.append((group, True))
        elif (mark in ")]" or weight is not None) and still_open[mark == "]"]:
            group = still_open[mark == "]"].pop()
            if weight is not None:
                group.multiplier = _number(weight)
            events.append((group, False))
        else:
            events.extend((piece, True) for piece in _broken(mark))
    return events


def _broken(text: str) -> list[str | Break]:
    """The text between the BREAKs and the breaks, without the white space around them."""
    if "BREAK" not in text:  # five times as fast for a prompt of nothing but brackets
        return [text]
    first, *rest = _BREAK.split(text)
    if not rest:
        return [text]
    pieces: list[str | Break] = [first.rstrip()]
    for part in rest[:-1]:
        pieces += [Break(), part.strip()]
    return [*pieces, Break(), rest[-1].lstrip()]


def _number(weight: str) -> float:
    try:
        return float(weight)
    except ValueError as error:
        raise PromptError(
            f"The prompt has a weight that is no number: (…:{weight}). Write it like (words:1.2), or escape the "
            "brackets as \\( and \\) if they are meant as text.",
            field="prompt",
        ) from error
