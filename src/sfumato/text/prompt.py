"""What a prompt says: words with weights, in chunks that the text encoder can take. One parser for each dialect.

The a1111 dialect is that of stable-diffusion-webui: `(x)` is 1.1 times as strong, `(x:1.3)` 1.3 times, `[x]` 1 / 1.1
times; nested weights multiply, so `((x:1.2))` is 1.32; a bracket that is never closed counts to the end; `\\(`, `\\)`,
`\\[`, `\\]` and `\\\\` are the characters themselves, and any other backslash is left out; `BREAK` begins a new chunk.
The plain dialect takes every character as it stands.

Everything here is linear in the length of the prompt and uses no recursion.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

from sfumato.errors import PromptError
from sfumato.text.tokenizer import Tokenizer

Dialect = Literal["a1111", "plain"]

EMPHASIS = 1.1  # what one pair of brackets multiplies by, or divides by: stable-diffusion-webui, prompt_parser.py
LARGEST_WEIGHT = 1e4  # ours: pictures dissolve above 2; beyond this, float16 states overflow
BACKTRACK = 20  # tokens; stable-diffusion-webui's default of comma_padding_backtrack


@dataclass(frozen=True)
class Span:
    """A run of text and how strong it is; 1 is as it stands."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Break:
    """The place where a new chunk begins."""


@dataclass(frozen=True)
class Chunk:
    """As many tokens as the text encoder takes at once, with the specials around them: `max_length` ids and weights.

    `length` counts the tokens of the prompt: they are at places 1 to `length`.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    length: int


@dataclass(frozen=True)
class Chunks:
    """A whole prompt in chunks, at least one; `cut` are the ids that the model cannot take, in order."""

    chunks: tuple[Chunk, ...]
    cut: tuple[int, ...] = ()


@dataclass(frozen=True)
class PromptReport:
    """What becomes of a prompt: for each token of it the spelling, the id, the weight and the chunk (from 0).

    `cut` is the text that the model cannot take, empty if it takes all; `cut_tokens` counts it.
    """

    prompt: str
    dialect: Dialect
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    places: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    cut: str
    cut_tokens: int


@dataclass
class _Group:
    """A bracket that was opened; its multiplier is known when it is closed."""

    square: bool
    multiplier: float


# One mark of the a1111 dialect; the group is the weight in front of a closing parenthesis.
_A1111 = re.compile(r"\\[()\[\]\\]?|[(\[]|:\s*([+-]?[.\d]+)\s*\)|[)\]]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\bBREAK\b")


def parse_plain(text: str) -> list[Span | Break]:
    """The text as one span."""
    return [Span(text)] if text else []


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
    rounded = (
        (piece, 1.0 if weight == 1.0 or isinstance(piece, Break) else _rounded(weight, piece))
        for piece, weight in pieces
    )
    spans: list[Span | Break] = []
    for (weight, breaks), run in groupby(rounded, key=lambda item: (item[1], isinstance(item[0], Break))):
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


def _rounded(weight: float, text: str) -> float:
    if not abs(weight) <= LARGEST_WEIGHT:  # also catches nan, from 0 x inf
        shown = text if len(text) <= 30 else text[:30] + "…"
        raise PromptError(
            f"The weight of {shown!r} in the prompt is {weight:.3g}; at most {LARGEST_WEIGHT:g} is possible, and "
            "pictures dissolve above 2. Use fewer brackets.",
            field="prompt",
        )
    return float(f"{weight:.12g}")


PARSERS: dict[Dialect, Callable[[str], list[Span | Break]]] = {"a1111": parse_a1111, "plain": parse_plain}


def parse(text: str, dialect: Dialect = "a1111") -> list[Span | Break]:
    """Spans and breaks of a prompt. Raises PromptError, also for a dialect that we do not have."""
    if dialect not in PARSERS:
        raise PromptError(f"dialect is {dialect!r}; it must be one of {', '.join(get_args(Dialect))}.", field="dialect")
    return PARSERS[dialect](text)


def chunk(spans: Sequence[Span | Break], tokenizer: Tokenizer, *, limit: int | None = None) -> Chunks:
    """The spans as chunks of `max_length - 2` tokens (75 for CLIP), with specials and padding around them.

    A chunk that is full ends after its last comma, if that is among its last 20 tokens: what follows the comma moves
    into the next chunk, so that phrases stay together (stable-diffusion-webui, sd_hijack_clip.py, the default of
    comma_padding_backtrack). A word of several tokens that would be cut begins the next chunk, too. An empty prompt
    is one empty chunk; so is what stands between two breaks.
    `limit`: the most chunks that the model takes; the tokens of further ones are returned as `cut`.
    Raises PromptError for text that the tokenizer refuses.
    """
    room, comma = tokenizer.max_length - 2, tokenizer.id(",</w>")
    full: list[list[tuple[int, float]]] = []
    current: list[tuple[int, float]] = []
    last_comma: int | None = None
    for span in spans:
        if isinstance(span, Break):
            full.append(current)
            current, last_comma = [], None
            continue
        for index in tokenizer.encode(span.text):
            if room - tokenizer.run(index) < len(current) < room and tokenizer.run(index) <= room:
                full.append(current)
                current, last_comma = [], None
            if len(current) == room:
                near = index != comma and last_comma is not None and room - last_comma <= BACKTRACK
                split = last_comma + 1 if near and last_comma is not None else room
                full.append(current[:split])
                current, last_comma = current[split:], None
            if index == comma:
                last_comma = len(current)
            current.append((index, span.weight))
    if current or not full:
        full.append(current)
    kept = full if limit is None else full[:limit]
    cut = tuple(index for tokens in full[len(kept) :] for index, _ in tokens)
    return Chunks(tuple(_padded(tokens, tokenizer) for tokens in kept), cut)


def empty_chunk(tokenizer: Tokenizer) -> Chunk:
    """The chunk of the empty prompt, which also pads a prompt to the number of chunks of another."""
    return _padded([], tokenizer)


def _padded(tokens: Sequence[tuple[int, float]], tokenizer: Tokenizer) -> Chunk:
    padding = tokenizer.max_length - 2 - len(tokens)
    ids = (tokenizer.bos, *(index for index, _ in tokens), tokenizer.eos, *[tokenizer.pad] * padding)
    weights = (1.0, *(weight for _, weight in tokens), *[1.0] * (padding + 1))
    return Chunk(ids, weights, len(tokens))


def report(text: str, tokenizer: Tokenizer, *, dialect: Dialect = "a1111", limit: int | None = None) -> PromptReport:
    """What becomes of a prompt with this tokenizer. Raises PromptError as `parse` and `chunk` do."""
    chunked = chunk(parse(text, dialect), tokenizer, limit=limit)
    placed = [
        (index, weight, place)
        for place, each in enumerate(chunked.chunks)
        for index, weight in zip(each.ids[1 : each.length + 1], each.weights[1 : each.length + 1], strict=True)
    ]
    return PromptReport(
        prompt=text,
        dialect=dialect,
        tokens=tuple(tokenizer.token(index) for index, _, _ in placed),
        ids=tuple(index for index, _, _ in placed),
        weights=tuple(weight for _, weight, _ in placed),
        places=tuple(place for _, _, place in placed),
        chunks=chunked.chunks,
        cut=tokenizer.decode(chunked.cut),
        cut_tokens=len(chunked.cut),
    )
