"""Prompts that are drawn: `{a|b}`, `{2$$a|b|c}` and `__name__`, as sd-dynamic-prompts has them.

`{a|b|c}` is one of them; `{3::a|b}` a three times as often; `{2$$a|b|c}` two different ones with ", " between them,
`{1-2$$ and $$a|b|c}` one or two with " and "; `__name__` is a line of a file of that name, `__colours/*__` one of all
files of such names, `{2$$__name__}` two of its lines. All may be nested, in files too. Braces without a bar or $$ are
text, and so are `\\{`, `\\}`.

What is drawn is a pure function of the seed and of the text: the same on every machine. Linear in the length of what is
read, and without recursion.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

from sfumato.errors import PromptError

Lines = Callable[[str], Sequence[str]]
"""The lines of a wildcard's file, or of all that a name with `*` fits. Raises PromptError for a name that is none."""

DEEPEST = 20  # files that name files
LONGEST = 200_000  # characters of what is drawn
_TOKEN = re.compile(r"\\[{}]|[{}|]|__(?P<name>(?:[^\W_]|\*)(?:(?!__)[\w./* -])*)(?<! )__|[^\\{}|_]+|.", re.DOTALL)
_COUNT = re.compile(r"\s*(\d{1,4})?\s*(-)?\s*(\d{1,4})?\s*\$\$")
_JOINER = re.compile(r"([^$]*)\$\$")
_WEIGHT = re.compile(r"\s*(\d+\.?\d*|\.\d+)::")


class Draws:
    """Numbers from a seed, one after another: SHA-256 of the seed, a purpose and how many were drawn before."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._key, self._count = f"{seed}|{purpose}|", 0

    def below(self, limit: int) -> int:
        """The next whole number from 0 to `limit` - 1."""
        self._count += 1
        digest = sha256(f"{self._key}{self._count}".encode()).digest()
        return int.from_bytes(digest[:16], "big") % limit  # 128 bits: no number is favoured that anybody could notice

    def weighted(self, weights: Sequence[float]) -> int:
        """The next place, each as often as its weight says; all the same where none has any."""
        total = sum(weights)
        if not total:
            return self.below(len(weights))
        left = self.below(2**53) / 2**53 * total
        for place, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return place
        return len(weights) - 1


@dataclass(frozen=True)
class _File:
    """A line of a file."""

    name: str


@dataclass(frozen=True)
class _Choice:
    """From `least` to `most` of several texts, with a text between them."""

    options: "tuple[tuple[_Piece, ...], ...]"
    weights: tuple[float, ...]
    least: int = 1
    most: int = 1
    joiner: str = ", "


_Piece: TypeAlias = str | _File | _Choice


@dataclass
class _Brace:
    """A brace that is open: where it opened among the pieces, and where its bars are."""

    start: int
    bars: list[int] = field(default_factory=list)


def is_drawn(text: str) -> bool:
    """Might a text have something that is drawn?"""
    return "{" in text or "__" in text


def drawn(text: str, draws: Draws, lines: Lines) -> str:
    """A text with everything drawn. Raises PromptError for a name that is none, for files that name each other in a
    circle, and for a text that grows too long.
    """
    found: list[str] = []
    length = 0
    pending: list[tuple[Iterator[_Piece], int]] = [(iter(_read(text)), 0)]
    while pending:
        pieces, depth = pending[-1]
        piece = next(pieces, None)
        if piece is None:
            pending.pop()
        elif isinstance(piece, str):
            found.append(piece)
            length += len(piece)
            if length > LONGEST:
                raise PromptError(f"The prompt grows beyond {LONGEST} characters when it is drawn.", "prompt")
        elif isinstance(piece, _File):
            inside = _inside(piece, depth)
            known = lines(piece.name)
            pending.append((iter(_read(known[draws.below(len(known))])), inside))
        else:
            file = _only_file(piece)
            inside = depth if file is None else _inside(file, depth)
            pending.append((_chosen(piece, draws, lines), inside))
    return "".join(found)


def _inside(file: _File, depth: int) -> int:
    """How deep the lines of a file are that is named this deep. Raises PromptError if that is too deep."""
    if depth == DEEPEST:
        raise PromptError(f"The wildcard __{file.name}__ is in a file that it names itself, or too deep.", "prompt")
    return depth + 1


def _only_file(choice: _Choice) -> _File | None:
    """The file whose lines are the options, where a choice is of nothing else."""
    only = choice.options[0][0] if len(choice.options) == 1 and len(choice.options[0]) == 1 else None
    return only if isinstance(only, _File) else None


def _chosen(choice: _Choice, draws: Draws, lines: Lines) -> Iterator[_Piece]:
    options, weights = list(choice.options), list(choice.weights)
    file = _only_file(choice)
    if file is not None:
        options = [_read(line) for line in lines(file.name)]
        weights = [1.0] * len(options)
    most = min(choice.most, len(options))
    count = min(choice.least, most) + draws.below(most - min(choice.least, most) + 1)
    chosen: list[_Piece] = []
    for number in range(count):
        place = draws.weighted(weights)
        chosen += [choice.joiner] if number else []
        chosen += options.pop(place)
        weights.pop(place)
    return iter(chosen)


def _read(text: str) -> tuple[_Piece, ...]:
    pieces: list[_Piece] = []
    braces: list[_Brace] = []
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark == "{":
            braces.append(_Brace(len(pieces)))
        elif mark == "|" and braces:
            braces[-1].bars.append(len(pieces))
        elif mark == "}" and braces:
            brace = braces.pop()
            choice = _made(pieces, brace)
            if choice is not None:
                del pieces[brace.start :]
                pieces.append(choice)
                continue
        name = match["name"]
        pieces.append(_File(name) if name is not None else mark[1:] if mark in ("\\{", "\\}") else mark)
    return tuple(pieces)


def _made(pieces: list[_Piece], brace: _Brace) -> _Choice | None:
    """What a pair of braces means, None if nothing but itself."""
    first = pieces[brace.start + 1] if len(pieces) > brace.start + 1 else ""
    count = _COUNT.match(first) if isinstance(first, str) else None
    if count is None and not brace.bars:
        return None
    bounds = zip([brace.start + 1, *(bar + 1 for bar in brace.bars)], [*brace.bars, len(pieces)], strict=True)
    options = [pieces[start:end] for start, end in bounds]
    head = _joined(options[0])
    least, most, joiner = 1, 1, ", "
    if count is not None:
        head = head[count.end() :]
        last = count[3] or (count[1] if not count[2] else "9999")
        least, most = int(count[1] or 1), int(last or 1)
        least, most = min(least, most), max(least, most)
        taken = _joiner_with_bars(head, options)
        between = _JOINER.match(taken)
        if between is not None:
            joiner, head = between[1], taken[between.end() :]
            options = options[taken[: between.end()].count("|") :]
    options[0] = _without_head(options[0], head)
    weights = []
    for number, option in enumerate(options):
        text = _joined(option)
        weight = _WEIGHT.match(text)
        weights.append(1.0 if weight is None else min(float(weight[1]), 1e6))
        if weight is not None:
            options[number] = _without_head(option, text[weight.end() :])
    return _Choice(tuple(map(tuple, options)), tuple(weights), least, most, joiner)


def _joiner_with_bars(head: str, options: Sequence[Sequence[_Piece]]) -> str:
    """What stands behind the count, with the first options where a joiner goes on into them: `{2$$ | $$a|b}`."""
    texts = [head]
    for number, option in enumerate(options):
        texts += [_joined(option)] if number else []
        if "$" in texts[-1]:
            return "|".join(texts)
        if not all(isinstance(piece, str) for piece in option):
            break
    return head


def _joined(option: Sequence[_Piece]) -> str:
    """The text that an option begins with."""
    found = []
    for piece in option:
        if not isinstance(piece, str):
            break
        found.append(piece)
    return "".join(found)


def _without_head(option: Sequence[_Piece], text: str) -> list[_Piece]:
    """The option with another text in place of that which it begins with."""
    rest = next((number for number, piece in enumerate(option) if not isinstance(piece, str)), len(option))
    return [*([text] if text else []), *option[rest:]]
