"""Spans in chunks that a text encoder can take."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sfumato.text.spans import Break, Span
from sfumato.text.tokenizer import Tokenizer
from sfumato.text.vocabulary import END_OF_WORD

Tokens = list[tuple[int, float]]
"""Ids with their weights."""

Fill = Callable[[Sequence[Span], Tokenizer], list[Tokens]]
"""(spans without breaks, tokenizer) -> the tokens of each chunk; none for no text."""

BACKTRACK = 20  # tokens; stable-diffusion-webui's default of comma_padding_backtrack
LONG_WORD = 8  # tokens; ComfyUI's max_word_length
ENDS: tuple[Callable[[str], bool], ...] = (
    lambda spelling: spelling == ".</w>",
    lambda spelling: spelling in (".</w>", ",</w>", ";</w>", ":</w>"),
    lambda spelling: spelling.endswith(END_OF_WORD),
)
"""What ends a sentence, a phrase and a word."""


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


def chunk(
    spans: Sequence[Span | Break], tokenizer: Tokenizer, *, fill: "Fill | None" = None, limit: int | None = None
) -> Chunks:
    """The spans as chunks of `max_length - 2` tokens (75 for CLIP), with specials and padding around them.

    `fill` says where a chunk ends that is full, by default `by_phrases`. An empty prompt is one empty chunk; so is what
    stands between two breaks. `limit`: the most chunks that the model takes; the tokens of further ones are returned as
    `cut`. Raises PromptError for text that the tokenizer refuses.
    """
    full: list[Tokens] = []
    run: list[Span] = []
    for span in spans:
        if isinstance(span, Span):
            run.append(span)
        else:
            full += (fill or by_phrases)(run, tokenizer) or [[]]
            run = []
    full += (fill or by_phrases)(run, tokenizer)
    full = full or [[]]
    kept = full if limit is None else full[:limit]
    cut = tuple(index for tokens in full[len(kept) :] for index, _ in tokens)
    return Chunks(tuple(_padded(tokens, tokenizer) for tokens in kept), cut)


def by_phrases(spans: Sequence[Span], tokenizer: Tokenizer) -> list[Tokens]:
    """Full chunks end after their last comma, if that is among their last 20 tokens, so that phrases stay together.

    What follows the comma moves into the next chunk (stable-diffusion-webui, sd_hijack_clip.py, the default of
    comma_padding_backtrack). An added word of several tokens that would be cut begins the next chunk, too.
    """
    room, comma = tokenizer.max_length - 2, tokenizer.id(",</w>")
    full: list[Tokens] = []
    current: Tokens = []
    last_comma: int | None = None
    for index, weight in _tokens(spans, tokenizer):
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
        current.append((index, weight))
    return [*full, current] if current else full


def by_words(spans: Sequence[Span], tokenizer: Tokenizer) -> list[Tokens]:
    """Full chunks end before a word that does not fit, unless it has 8 tokens or more: such words are cut.

    ComfyUI's rule (comfy/sd1_clip.py, max_word_length).
    """
    room = tokenizer.max_length - 2
    full: list[Tokens] = []
    current: Tokens = []
    for word in _words(spans, tokenizer):
        if len(current) + len(word) > room and len(word) < LONG_WORD:
            full.append(current)
            current = []
        for token in word:
            if len(current) == room:
                full.append(current)
                current = []
            current.append(token)
    return [*full, current] if current else full


def by_sentences(spans: Sequence[Span], tokenizer: Tokenizer) -> list[Tokens]:
    """Full chunks end after their last sentence; without one after a phrase, without that after a word.

    compel's rule for long prompts (SplitLongTextMode.SENTENCES).
    """
    room = tokenizer.max_length - 2
    tokens, full, start = list(_tokens(spans, tokenizer)), [], 0
    while len(tokens) - start > room:
        spelt = [tokenizer.token(index) for index, _ in tokens[start : start + room]]
        ends = (
            next((place + 1 for place in range(room - 1, -1, -1) if ends_here(spelt[place])), None)
            for ends_here in ENDS
        )
        split = next((end for end in ends if end is not None), room)
        full.append(tokens[start : start + split])
        start += split
    return [*full, tokens[start:]] if start < len(tokens) else full


def _tokens(spans: Sequence[Span], tokenizer: Tokenizer) -> Iterator[tuple[int, float]]:
    return ((index, span.weight) for span in spans for index in tokenizer.encode(span.text))


def _words(spans: Sequence[Span], tokenizer: Tokenizer) -> Iterator[Tokens]:
    """The tokens of each word; one that was added and has several is one word."""
    word: Tokens = []
    for index, weight in _tokens(spans, tokenizer):
        word.append((index, weight))
        if len(word) >= tokenizer.run(word[0][0]) and (
            tokenizer.run(word[0][0]) > 1 or tokenizer.token(index).endswith(END_OF_WORD)
        ):
            yield word
            word = []
    if word:
        yield word


def empty_chunk(tokenizer: Tokenizer) -> Chunk:
    """The chunk of the empty prompt, which also pads a prompt to the number of chunks of another."""
    return _padded([], tokenizer)


def _padded(tokens: Sequence[tuple[int, float]], tokenizer: Tokenizer) -> Chunk:
    padding = tokenizer.max_length - 2 - len(tokens)
    ids = (tokenizer.bos, *(index for index, _ in tokens), tokenizer.eos, *[tokenizer.pad] * padding)
    weights = (1.0, *(weight for _, weight in tokens), *[1.0] * (padding + 1))
    return Chunk(ids, weights, len(tokens))
