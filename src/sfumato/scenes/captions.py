"""Words for a scene: varied phrasing, attributes left out at random, and a record of what was said."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sfumato.scenes.familiar import LEADS
from sfumato.scenes.natural import pick, sentence
from sfumato.scenes.scene import Scene
from sfumato.scenes.vocabulary import BACKGROUNDS, KINDS, PLACES, RELATIONS, SIZE_WORDS, STYLES

SAID = {"colour": 0.9, "size": 0.5, "place": 0.7, "background": 0.85, "style": 0.35}
"""How often a caption mentions an attribute; what it does not mention is free."""

RELATED = 0.5  # how often it says of two things how they lie to each other, in place of where


class Placed(Protocol):
    """Anything with a centre, x to the right and y down."""

    @property
    def x(self) -> float: ...

    @property
    def y(self) -> float: ...


@dataclass(frozen=True)
class Claim:
    """What a caption says of one thing; None where it says nothing."""

    kind: str
    colour: str | None
    size: str | None
    place: str | None


@dataclass(frozen=True)
class Caption:
    """A caption and what it claims. `relation` holds between the first thing and the second."""

    text: str
    claims: tuple[Claim, ...]
    background: str | None
    style: str | None
    relation: str | None = None


def caption(
    scene: Scene,
    rng: np.random.Generator,
    complete: bool = False,
    *,
    said: Mapping[str, float] = SAID,
    related: float = RELATED,
    natural: float = 0.0,
) -> Caption:
    """A caption of `scene`; every attribute is said when `complete`, else as often as `said` and `related` tell.

    So large a share as `natural` is a sentence as people write them.
    """

    def says(attribute: str) -> bool:
        return complete or rng.random() < said[attribute]

    relation = relation_between(*scene.things) if len(scene.things) == 2 and rng.random() < related else None
    claims = tuple(
        Claim(
            kind=thing.kind,
            colour=thing.colour if says("colour") else None,
            size=thing.size if says("size") else None,
            place=thing.place if relation is None and says("place") else None,
        )
        for thing in scene.things
    )
    background = scene.background if says("background") else None
    style = scene.style if says("style") else None
    if natural and rng.random() < natural:
        claims, relation = _counted(scene, claims, relation, rng)
        text = sentence(claims, background, style, relation, rng)
    else:
        text = _phrase(claims, background, style, relation, rng)
    return Caption(text, claims, background, style, relation)


def _counted(
    scene: Scene, claims: tuple[Claim, ...], relation: str | None, rng: np.random.Generator
) -> tuple[tuple[Claim, ...], str | None]:
    """Of two things of a kind, most often, only what both are, so that they can be told as two."""
    if len({claim.kind for claim in claims}) == len(claims) or rng.random() < 0.3:
        return claims, relation
    first, second = scene.things
    alike = replace(
        claims[0],
        colour=claims[0].colour if first.colour == second.colour else None,
        size=claims[0].size if first.size == second.size else None,
        place=None,
    )
    return (alike, alike), None


def relation_between(first: Placed, second: Placed) -> str:
    """How the first thing lies to the second, along the axis on which they are further apart."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _phrase(
    claims: tuple[Claim, ...], background: str | None, style: str | None, relation: str | None, rng: np.random.Generator
) -> str:
    if rng.random() < 0.12 and relation is None:
        return _tags(claims, background, style, rng)
    nouns = [_noun_phrase(claim, rng) for claim in claims]
    if relation is not None:
        things = f"{nouns[0]} {pick(RELATIONS[relation], rng)} {nouns[1]}"
    else:
        places = [pick(PLACES[claim.place], rng) if claim.place else "" for claim in claims]
        things = " and ".join(f"{noun} {place}".strip() for noun, place in zip(nouns, places, strict=True))
    if style is not None:
        things = f"{pick(STYLES[style], rng)} {things}"
    elif rng.random() < 0.2:
        things = f"{pick(LEADS, rng)} {things}"
    if background is None:
        return things
    where = pick(BACKGROUNDS[background].phrases, rng)
    form = rng.random()
    if form < 0.6:
        return f"{things} {where}"
    if form < 0.75:
        return f"{things}, {where}"
    if form < 0.9:
        return f"{where}, {things}"
    return f"{pick(BACKGROUNDS[background].nouns, rng)} with {things}"


def _noun_phrase(claim: Claim, rng: np.random.Generator) -> str:
    words = [pick(KINDS[claim.kind], rng)]
    if claim.colour:
        words.insert(0, claim.colour)
    if claim.size:
        words.insert(0, pick(SIZE_WORDS[claim.size], rng))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def _tags(claims: tuple[Claim, ...], background: str | None, style: str | None, rng: np.random.Generator) -> str:
    tags = []
    for claim in claims:
        words = [claim.colour, KINDS[claim.kind][0]]
        tags.append(" ".join(word for word in words if word))
        tags.extend(tag for tag in (claim.size, claim.place) if tag)
    tags.extend(tag for tag in (background, style) if tag)
    return ", ".join(tags)
