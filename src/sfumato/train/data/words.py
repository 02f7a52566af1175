"""What is said of a picture at a given draw: choosing, shuffling and dropping words.

The rules are kohya's (sd-scripts, `process_caption`): prefix and suffix, dropout, one line, wildcards, then tags. Two
things differ: prefix and suffix stand around whichever line is chosen, not before the first and after the last; and
the keep separator is taken out of the caption even where nothing is shuffled or dropped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WILDCARD = re.compile(r"\{([^{}]+)\}")
ESCAPES = (("{{", "\ue000"), ("}}", "\ue001"))  # private characters stand for literal braces meanwhile


@dataclass(frozen=True, kw_only=True)
class CaptionRules:
    """How a caption changes from draw to draw. The defaults leave it as it is.

    Tags are what stands between `separator`s; the first `keep` of them, or what lies before the first and after the
    second `keep_separator`, stay in place. `secondary_separator` becomes `separator` at the end, so that tags which
    belong together move together. `wildcard` chooses a line, and one of {a|b|c}. `dropout` and `tag_dropout` are
    probabilities, of no words at all and of leaving out each tag.
    """

    shuffle: bool = False
    keep: int = 0
    keep_separator: str = ""
    separator: str = ","
    secondary_separator: str = ""
    wildcard: bool = False
    first_line: bool = False  # of several lines only the first counts, unless `wildcard` chooses
    prefix: str = ""
    suffix: str = ""
    dropout: float = 0.0
    tag_dropout: float = 0.0


def spoken(texts: Sequence[str], rules: CaptionRules, draw: int) -> str:
    """The caption at a draw (any integer): the same for the same arguments, always.

    Without rules, caption number `draw` of the several there are, counted around.
    """
    if rules == CaptionRules():
        return texts[draw % len(texts)]
    rng = np.random.default_rng(draw % 2**64)
    text = texts[int(rng.integers(len(texts)))]
    if rng.random() < rules.dropout:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if rules.wildcard:
        text = lines[int(rng.integers(len(lines)))]
    elif rules.first_line:
        text = lines[0]
    text = " ".join(part for part in (rules.prefix, text, rules.suffix) if part)
    if rules.wildcard:
        text = _choose(text, rng)
    marked = bool(rules.keep_separator) and rules.keep_separator in text
    if rules.shuffle or rules.tag_dropout > 0 or marked:
        text = _rearrange(text, rules, rng)
    return text.replace(rules.secondary_separator, rules.separator) if rules.secondary_separator else text


def _choose(text: str, rng: np.random.Generator) -> str:
    """The text with one of each {a|b|c} in its place; {{ and }} are braces."""
    for literal, private in ESCAPES:
        text = text.replace(literal, private)

    def one(match: re.Match[str]) -> str:
        options = match[1].split("|")
        return options[int(rng.integers(len(options)))]

    text = WILDCARD.sub(one, text)
    for literal, private in ESCAPES:
        text = text.replace(private, literal[0])
    return text


def _rearrange(text: str, rules: CaptionRules, rng: np.random.Generator) -> str:
    """The tags in their new order, those that are dropped left out."""

    def tags(part: str) -> list[str]:
        return [tag.strip() for tag in part.split(rules.separator) if tag.strip()]

    if rules.keep_separator and rules.keep_separator in text:
        before, rest = text.split(rules.keep_separator, 1)
        middle, _, after = rest.partition(rules.keep_separator)
        fixed, free, last = tags(before), tags(middle), tags(after)
    else:
        every = tags(text)
        fixed, free, last = every[: rules.keep], every[rules.keep :], []
    if rules.shuffle:
        free = [free[at] for at in rng.permutation(len(free))]
    if rules.tag_dropout > 0:
        kept = rng.random(len(free)) >= rules.tag_dropout
        free = [tag for tag, stays in zip(free, kept, strict=True) if stays]
    return f"{rules.separator} ".join([*fixed, *free, *last])
