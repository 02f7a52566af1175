"""Which words of a text no caption of the drawn world has: what a model that saw nothing else cannot know."""

import re
from collections.abc import Iterable

from sfumato.scenes import natural
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, PLACES, RELATIONS, SIZE_WORDS, STYLES

LEADS = ("a picture of", "a drawing of", "there is", "an image of")
"""How a caption without a style may begin."""

JOINS = ("a", "an", "and", "with")
"""What a caption puts between its phrases."""

_WORD = re.compile(r"[^\W\d_]+")


def _phrases() -> Iterable[str]:
    yield from (*LEADS, *JOINS, *COLOURS, *SIZE_WORDS, *natural.words())
    for table in (KINDS, SIZE_WORDS, PLACES, RELATIONS, STYLES):
        yield from table
        yield from (phrase for phrases in table.values() for phrase in phrases)
    for name, background in BACKGROUNDS.items():
        yield from (name, *background.phrases, *background.nouns)


FAMILIAR = frozenset(word for phrase in _phrases() for word in _WORD.findall(phrase.lower()))
"""Every word of every caption."""


def unseen_words(text: str) -> tuple[str, ...]:
    """The words of a text that are in no caption, each once, in their order and in lower case."""
    return tuple(word for word in dict.fromkeys(_WORD.findall(text.lower())) if word not in FAMILIAR)
