"""What a prompt says, in any dialect: words with weights, and what becomes of them with a tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from sfumato.errors import PromptError
from sfumato.request import Dialect
from sfumato.text.a1111 import parse_a1111
from sfumato.text.chunks import Chunk, Fill, by_phrases, by_sentences, by_words, chunk
from sfumato.text.comfy import parse_comfy
from sfumato.text.compel import mixture_compel, parse_compel
from sfumato.text.spans import Break, Mixture, Span
from sfumato.text.tokenizer import Tokenizer


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


def parse_plain(text: str) -> list[Span | Break]:
    """The text as one span."""
    return [Span(text)] if text else []


PARSERS: dict[Dialect, Callable[[str], list[Span | Break]]] = {
    "a1111": parse_a1111,
    "comfy": parse_comfy,
    "compel": parse_compel,
    "plain": parse_plain,
}
FILLS: dict[Dialect, Fill] = {
    "a1111": by_phrases,
    "comfy": by_words,
    "compel": by_sentences,
    "plain": by_phrases,
}


def parse(text: str, dialect: Dialect = "a1111") -> list[Span | Break]:
    """Spans and breaks of a prompt. Raises PromptError, also for a dialect that we do not have."""
    if dialect not in PARSERS:
        raise PromptError(f"dialect is {dialect!r}; it must be one of {', '.join(get_args(Dialect))}.", field="dialect")
    return PARSERS[dialect](text)


def mixture(text: str, dialect: Dialect = "a1111") -> Mixture:
    """The parts that a prompt is made of: one, but in the compel dialect. Raises PromptError as `parse` does."""
    return mixture_compel(text) if dialect == "compel" else Mixture((tuple(parse(text, dialect)),))


def report(text: str, tokenizer: Tokenizer, *, dialect: Dialect = "a1111", limit: int | None = None) -> PromptReport:
    """What becomes of a prompt with this tokenizer. Raises PromptError as `parse` and `chunk` do."""
    spans = [span for part in mixture(text, dialect).parts for span in (Break(), *part)][1:]
    found = chunk(spans, tokenizer, fill=FILLS[dialect], limit=limit)
    placed = [
        (index, weight, place)
        for place, each in enumerate(found.chunks)
        for index, weight in zip(each.ids[1 : each.length + 1], each.weights[1 : each.length + 1], strict=True)
    ]
    return PromptReport(
        prompt=text,
        dialect=dialect,
        tokens=tuple(tokenizer.token(index) for index, _, _ in placed),
        ids=tuple(index for index, _, _ in placed),
        weights=tuple(weight for _, weight, _ in placed),
        places=tuple(place for _, _, place in placed),
        chunks=found.chunks,
        cut=tokenizer.decode(found.cut),
        cut_tokens=len(found.cut),
    )
