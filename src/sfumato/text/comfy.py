"""Weights in the dialect of ComfyUI.

`(x)` is 1.1 times as strong as what is around it, and `(x:1.3)` 1.3, whatever is around it: `((x:1.2))` is 1.2. `\\(`
and `\\)` are the characters themselves. There are no other marks. A parenthesis that is never closed is text, and so is
all that follows it, unless the text ends with another's `)`; after one that was never opened, the next pair is text.

Linear in the length of the prompt, but for a logarithm, and without recursion.
"""

import re
from bisect import bisect_left

from sfumato.text.spans import Break, Span, rounded

EMPHASIS = 1.1  # what one pair of parentheses multiplies by: ComfyUI, comfy/sd1_clip.py, token_weights
LONGEST_NUMBER = 40  # characters; ours: what is longer is no weight

_MARK = re.compile(r"\\[()]|[()]")
_ESCAPED = re.compile(r"\\([()])")


def parse_comfy(text: str) -> list[Span | Break]:
    """Spans of a prompt in the comfy dialect, in order; each is tokenized by itself.

    Raises PromptError for a weight larger than LARGEST_WEIGHT.
    """
    places = [match.start() for match in _MARK.finditer(text) if len(match[0]) == 1]
    closing = _matches(text, places)
    colons = [place for place, character in enumerate(text) if character == ":"]
    spans: list[Span | Break] = []
    # what is left to read: from and to, the marks within, and its weight
    pending = [(0, len(text), 0, len(places), 1.0)]
    while pending:
        start, end, first, last, weight = pending.pop()
        opening = _group(text, places, first, last)
        if opening is None:
            _append(spans, text[start:end], weight)
            continue
        place, close = places[opening], closing[opening]
        _append(spans, text[start:place], weight)
        if close < last:
            pending.append((places[close] + 1, end, close + 1, last, weight))
        elif last - 1 > opening and places[last - 1] == end - 1 and text[end - 1] == ")":
            close = last - 1
        else:
            _append(spans, text[place:end], weight)
            continue
        inner_end, inner = _weight(text, colons, place + 1, places[close], weight)
        pending.append((place + 1, inner_end, opening + 1, bisect_left(places, inner_end), inner))
    return spans


def _matches(text: str, places: list[int]) -> list[int]:
    """For each opening parenthesis, the number of the one that closes it; for those that none closes, a number too."""
    closing, still_open = [len(places)] * len(places), []
    for number, place in enumerate(places):
        if text[place] == "(":
            still_open.append(number)
        elif still_open:
            closing[still_open.pop()] = number
    return closing


def _group(text: str, places: list[int], first: int, last: int) -> int | None:
    """The number of the first mark that opens a group, of those from `first` to `last`."""
    level = 0
    for number in range(first, last):
        if text[places[number]] == ")":
            level -= 1
        elif level == 0:
            return number
        else:
            level += 1
    return None


def _weight(text: str, colons: list[int], start: int, end: int, outer: float) -> tuple[int, float]:
    """Where the text of a group ends that is within start and end, and its weight."""
    found = bisect_left(colons, end) - 1
    if found >= 0 and start < colons[found] and end - colons[found] <= LONGEST_NUMBER:
        try:
            return colons[found], float(text[colons[found] + 1 : end])
        except ValueError:
            pass
    return end, outer * EMPHASIS


def _append(spans: list[Span | Break], text: str, weight: float) -> None:
    if text:
        spans.append(Span(_ESCAPED.sub(r"\1", text), 1.0 if weight == 1.0 else rounded(weight, text)))
