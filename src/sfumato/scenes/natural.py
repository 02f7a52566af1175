"""Captions as people write them: openings, verbs, adjectives that say nothing, more words for the same places.

They claim what a plain caption claims, no more; what is said of a picture beside that is to be heard and passed over.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sfumato.scenes.vocabulary import BACKGROUNDS, KINDS, PLACES, RELATIONS, SIZE_WORDS, STYLES

if TYPE_CHECKING:
    from sfumato.scenes.captions import Claim

OPENINGS = (
    *("a photo of", "a photograph of", "a picture of", "an illustration of", "an image showing", "a nice picture with"),
    *("i would like to see", "i want to see", "i want", "please draw", "draw me", "draw", "show me", "can you draw"),
    *("imagine", "here is", "there is", "this is", "we see", "you can see", "look at"),
)
ARTICLES = ("a", "a", "a", "a", "a", "the", "the", "one", "my", "our", "")
EMPTY = (
    *("beautiful", "lovely", "pretty", "nice", "old", "new", "lonely", "single", "simple", "cute", "wonderful"),
    *("magic", "shiny", "fine", "quiet", "strange", "famous", "friendly", "cheerful", "ordinary"),
)
"""Adjectives that change nothing in the picture."""

VERY = ("very", "really", "quite")

ENDINGS = (
    *("please", "thank you", "highly detailed", "detailed", "best quality", "masterpiece", "digital art", "soft light"),
    *(
        "sharp focus",
        "in nice colours",
        "very beautiful",
        "for my daughter",
        "for a book for children",
        "as you like it",
    ),
)

MORE_NOUNS = {
    "house": ("home", "hut"),
    "car": ("vehicle",),
    "boat": ("sailboat", "sailing boat"),
    "ball": ("beach ball",),
    "heart": ("heart shape",),
}

DOING = {
    "house": ("standing", "that stands", "built"),
    "tree": ("growing", "standing", "that grows"),
    "flower": ("growing", "blooming", "that blooms"),
    "car": ("parked", "driving", "standing", "waiting"),
    "boat": ("floating", "sailing", "drifting", "that sails"),
    "fish": ("swimming", "jumping", "that swims"),
    "ball": ("lying", "rolling", "bouncing", "that lies"),
    "star": ("shining", "glowing", "twinkling", "hanging", "that shines"),
    "moon": ("shining", "glowing", "hanging", "that shines"),
    "heart": ("floating", "hanging", "lying", "drawn"),
}

MORE_PLACES = {
    "top left": ("near the top left corner", "up on the left"),
    "top": ("at the very top", "near the top of the picture", "high up"),
    "top right": ("near the top right corner", "up on the right"),
    "left": ("on the left of the picture", "at the left edge"),
    "middle": ("right in the middle", "in the middle of the picture", "at the centre"),
    "right": ("on the right of the picture", "at the right edge"),
    "bottom left": ("near the bottom left corner", "down on the left"),
    "bottom": ("at the very bottom", "at the bottom of the picture", "low down"),
    "bottom right": ("near the bottom right corner", "down on the right"),
}

MORE_LANDS = {
    "grass": (
        *("in a park", "in the garden", "on a green field", "in the green grass", "on a quiet green meadow"),
        *("in the countryside", "on a summer day in the grass"),
    ),
    "sea": ("in the sea", "in the ocean", "on the water", "on the waves", "by the ocean", "at sea", "on the open sea"),
    "snow": ("in a snowy landscape", "on a snowy day", "on a cold winter day", "surrounded by snow", "in deep snow"),
    "desert": ("in a sandy desert", "in the hot desert", "among the dunes", "on a sandy beach", "on the beach"),
    "night": (
        *("in the night sky", "on a dark night", "at midnight", "in the dark sky", "by night", "during the night"),
        "under the dark night sky",
    ),
    "sunset": (
        *("in the evening light", "at the end of the day", "in the evening sky", "in the light of the setting sun"),
        *("as the sun sets", "in front of a sunset"),
    ),
}

MORE_SCENERY = {
    "grass": ("a garden", "a park", "a quiet green meadow", "grass"),
    "sea": ("the wide sea", "water", "sea"),
    "snow": ("a winter landscape", "deep snow", "snow"),
    "desert": ("a sandy beach", "the hot desert", "desert"),
    "night": ("a clear night sky", "night"),
    "sunset": ("a warm evening", "a beautiful sunset", "sunset"),
}

MORE_STYLES = {
    "shaded": ("a soft painting of", "an oil painting of", "a watercolour of"),
    "flat": ("a paper cutout of", "a flat design of", "a simple flat picture of"),
    "outline": ("a comic drawing of", "an ink drawing of", "a line drawing of"),
}

AS_STYLE = {
    "shaded": ("as a painting", "painted", "oil painting"),
    "flat": ("as a paper cut", "flat design", "in a flat style"),
    "outline": ("as a cartoon", "in cartoon style", "drawn in ink"),
}

MORE_RELATIONS = {
    "left of": ("on the left side of", "standing to the left of"),
    "right of": ("on the right side of", "standing to the right of"),
    "above": ("high above", "on top of"),
    "below": ("underneath", "far below"),
}

OTHER_WAY = {
    "left of": "and to the right of it",
    "right of": "and to the left of it",
    "above": "and below it",
    "below": "and above it",
}
"""What leads to the second thing where it is said how that lies to the first."""

TOGETHER = ("and", "together with", "and also", "with")


def words() -> Iterable[str]:
    """Every phrase of these captions that plain ones do not have."""
    yield from (*OPENINGS, *ARTICLES, *EMPTY, *VERY, *ENDINGS, *OTHER_WAY.values(), *TOGETHER, "two", "that is", "are")
    for table in (MORE_NOUNS, DOING, MORE_PLACES, MORE_LANDS, MORE_SCENERY, MORE_STYLES, AS_STYLE, MORE_RELATIONS):
        yield from (phrase for phrases in table.values() for phrase in phrases)
    yield from (plural(noun) for kind in KINDS for noun in nouns(kind))


def sentence(
    claims: Sequence["Claim"], background: str | None, style: str | None, relation: str | None, rng: np.random.Generator
) -> str:
    """A sentence, or what stands for one, that says these claims. Two claims that are the same become a plural."""
    things = _things(claims, relation, rng)
    after = []
    if style is not None and rng.random() < 0.4:
        after.append(pick(AS_STYLE[style], rng))
    elif style is not None:
        things = f"{pick((*STYLES[style], *MORE_STYLES[style]), rng)} {things}"
    elif rng.random() < 0.5:
        things = f"{pick(OPENINGS, rng)} {things}"
    if rng.random() < 0.25:
        after.append(pick(ENDINGS, rng))
    text = ", ".join([things if background is None else _in_land(things, background, rng), *after])
    return text if rng.random() < 0.8 else f"{text}."


def _in_land(things: str, background: str, rng: np.random.Generator) -> str:
    land = pick((*BACKGROUNDS[background].phrases, *MORE_LANDS[background], *MORE_LANDS[background]), rng)
    scenery = pick((*BACKGROUNDS[background].nouns, *MORE_SCENERY[background]), rng)
    form = rng.random()
    if form < 0.65:
        return f"{things} {land}"
    if form < 0.75:
        return f"{things}, {land}"
    if form < 0.85:
        return f"{land}, {things}"
    return f"{things}, {scenery}" if form < 0.95 else f"{scenery} with {things}"


def _things(claims: Sequence["Claim"], relation: str | None, rng: np.random.Generator) -> str:
    if len(claims) == 2 and claims[0] == claims[1]:
        return _noun_phrase(claims[0], rng, two=True)
    said = [_noun_phrase(claim, rng) for claim in claims]
    if relation is None:
        return f" {pick(TOGETHER, rng)} ".join(said)
    if rng.random() < 0.25:
        return f"{said[0]}, {OTHER_WAY[relation]} {said[1]}"
    return f"{said[0]} {pick((*RELATIONS[relation], *MORE_RELATIONS[relation]), rng)} {said[1]}"


def _noun_phrase(claim: "Claim", rng: np.random.Generator, *, two: bool = False) -> str:
    noun = pick(nouns(claim.kind), rng)
    before, after = [plural(noun) if two else noun], []
    if claim.colour and rng.random() < 0.85:
        before.insert(0, claim.colour)
    elif claim.colour:
        after.append(f"that {'are' if two else 'is'} {claim.colour}")
    if claim.size:
        before.insert(0, pick(SIZE_WORDS[claim.size], rng))
        if rng.random() < 0.15 and claim.size != "medium":
            before.insert(0, pick(VERY, rng))
    if rng.random() < 0.2:
        before.insert(0, pick(EMPTY, rng))
    article = "two" if two else pick(ARTICLES, rng)
    if article == "a" and before[0][0] in "aeiou":
        article = "an"
    if rng.random() < 0.4:
        after.append(pick([how for how in DOING[claim.kind] if not ((two or after) and how.startswith("that "))], rng))
    if claim.place:
        after.append(pick((*PLACES[claim.place], *MORE_PLACES[claim.place]), rng))
    return " ".join(word for word in (article, *before, *after) if word)


def nouns(kind: str) -> tuple[str, ...]:
    """The nouns that name a kind, the plain ones more often."""
    return (*KINDS[kind], *KINDS[kind], *MORE_NOUNS.get(kind, ()))


def plural(noun: str) -> str:
    """More than one of it."""
    return noun if noun.endswith("fish") else f"{noun}s"


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of them, each as likely."""
    return options[int(rng.integers(len(options)))]
