"""A caption says what it claims, and claims all that it says."""

import numpy as np
import pytest

from sfumato.scenes.captions import SAID, Caption, caption, relation_between
from sfumato.scenes.scene import Scene, Thing, scene
from sfumato.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    PLACES,
    RELATIONS,
    SIZE_WORDS,
    STYLES,
)

COUNT = 400


def phrases(attribute: str, name: str) -> tuple[str, ...]:
    """Every way to say a value of an attribute; plain tags say it by its name."""
    background = BACKGROUNDS.get(name)
    return {
        "kind": KINDS.get(name, ()),
        "colour": (name,),
        "size": (*SIZE_WORDS.get(name, ()), name),
        "place": (*PLACES.get(name, ()), name),
        "background": (*background.phrases, *background.nouns, name) if background else (),
        "style": (*STYLES.get(name, ()), name),
        "relation": RELATIONS.get(name, ()),
    }[attribute]


def described(complete: bool = False) -> list[tuple[Scene, Caption]]:
    drawn = [scene(11, index, counts=(1.0, 1.0)) for index in range(COUNT)]
    return [(s, caption(s, np.random.default_rng(index), complete)) for index, s in enumerate(drawn)]


def claimed(said: Caption) -> list[tuple[str, str]]:
    """All (attribute, value) pairs that a caption claims."""
    pairs = [(name, getattr(claim, name)) for claim in said.claims for name in ("kind", "colour", "size", "place")]
    pairs += [("background", said.background), ("style", said.style), ("relation", said.relation)]
    return [(attribute, value) for attribute, value in pairs if value is not None]


@pytest.mark.parametrize("complete", [False, True])
def test_every_claim_is_in_the_words(complete: bool) -> None:
    for _, said in described(complete):
        for attribute, value in claimed(said):
            assert any(phrase in said.text for phrase in phrases(attribute, value)), (attribute, value, said.text)


def test_every_claim_is_true_of_the_scene() -> None:
    for drawn, said in described():
        for claim, thing in zip(said.claims, drawn.things, strict=True):
            assert claim.kind == thing.kind
            assert claim.colour in (None, thing.colour)
            assert claim.size in (None, thing.size)
            assert claim.place in (None, thing.place)
        assert said.background in (None, drawn.background)
        assert said.style in (None, drawn.style)
        assert said.relation in (None, relation_between(*drawn.things) if len(drawn.things) == 2 else None)


def test_nothing_is_in_the_words_that_is_not_claimed() -> None:
    """What is left of a caption without the words of its claims mentions no attribute at all."""
    values = {"colour": COLOURS, "size": SIZE_WORDS, "place": PLACES, "style": STYLES, "kind": KINDS}
    for _, said in described():
        rest = f" {said.text} ".replace(",", " , ")
        told = [phrase for attribute, value in claimed(said) for phrase in phrases(attribute, value)]
        for phrase in sorted(told, key=len, reverse=True):
            rest = rest.replace(f" {phrase} ", "  ")
        for attribute, names in values.items():
            for phrase in (phrase for name in names for phrase in phrases(attribute, name)):
                assert f" {phrase} " not in rest, (attribute, phrase, said.text, rest)
        for name, background in BACKGROUNDS.items():
            assert not any(f" {phrase} " in rest for phrase in (*background.phrases, *background.nouns)), (name, rest)


def test_a_complete_caption_says_everything() -> None:
    for drawn, said in described(complete=True):
        assert said.background == drawn.background
        assert said.style == drawn.style
        for claim in said.claims:
            assert claim.colour and claim.size
            assert claim.place or said.relation


def test_attributes_are_said_as_often_as_intended() -> None:
    said = [caption(scene(12, i), np.random.default_rng(i)) for i in range(COUNT)]
    shares = {
        "colour": [each.claims[0].colour is not None for each in said],
        "size": [each.claims[0].size is not None for each in said],
        "place": [each.claims[0].place is not None for each in said],
        "background": [each.background is not None for each in said],
        "style": [each.style is not None for each in said],
    }
    for name, told in shares.items():
        spread = (SAID[name] * (1 - SAID[name]) / COUNT) ** 0.5
        assert abs(sum(told) / COUNT - SAID[name]) < 4 * spread, name


def test_the_same_generator_gives_the_same_caption() -> None:
    drawn = scene(1, 2, counts=(0.0, 1.0))
    assert caption(drawn, np.random.default_rng(9)) == caption(drawn, np.random.default_rng(9))


@pytest.mark.parametrize(
    ("first", "expected"),
    [((0.25, 0.5), "left of"), ((0.75, 0.52), "right of"), ((0.5, 0.25), "above"), ((0.48, 0.75), "below")],
)
def test_a_relation_is_told_along_the_axis_of_the_larger_distance(first: tuple[float, float], expected: str) -> None:
    assert relation_between(Thing("ball", "red", "small", *first), Thing("star", "red", "small", 0.5, 0.5)) == expected
