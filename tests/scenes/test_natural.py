"""Captions as people write them claim what their scene shows, in words that say so, and nothing else."""

from collections.abc import Sequence

import numpy as np
import pytest

from sfumato.scenes import natural
from sfumato.scenes.captions import Caption, Claim, caption
from sfumato.scenes.scene import Scene, Thing, scene
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, PLACES, RELATIONS, SIZE_WORDS, STYLES

COUNT = 600
SCENES = [scene(21, index, counts=(1.0, 1.0)) for index in range(COUNT)]


def said(drawn: Scene, number: int) -> Caption:
    return caption(drawn, np.random.default_rng(number), natural=1.0)


CAPTIONS = [said(drawn, number) for number, drawn in enumerate(SCENES)]


def ways(attribute: str, name: str) -> Sequence[str]:
    """Every way to say a value."""
    if attribute == "kind":
        return [word for noun in natural.nouns(name) for word in (noun, natural.plural(noun))]
    if attribute == "background":
        land = BACKGROUNDS[name]
        return (*land.phrases, *land.nouns, *natural.MORE_LANDS[name], *natural.MORE_SCENERY[name])
    if attribute == "style":
        return (*STYLES[name], *natural.MORE_STYLES[name], *natural.AS_STYLE[name])
    if attribute == "relation":
        return (*RELATIONS[name], *natural.MORE_RELATIONS[name], natural.OTHER_WAY[name])
    if attribute == "place":
        return (*PLACES[name], *natural.MORE_PLACES[name])
    return SIZE_WORDS[name] if attribute == "size" else (name,)


def claims(caption: Caption) -> list[tuple[str, str | None]]:
    each = [(name, getattr(claim, name)) for claim in caption.claims for name in ("kind", "colour", "size", "place")]
    return [*each, ("background", caption.background), ("style", caption.style), ("relation", caption.relation)]


def test_every_claim_is_in_the_words() -> None:
    for each in CAPTIONS:
        for attribute, value in claims(each):
            assert value is None or any(way in each.text for way in ways(attribute, value)), (value, each.text)


def test_every_claim_is_true_of_the_scene() -> None:
    for drawn, each in zip(SCENES, CAPTIONS, strict=True):
        for claim, thing in zip(each.claims, drawn.things, strict=True):
            assert claim.kind == thing.kind
            assert claim.colour in (None, thing.colour)
            assert claim.size in (None, thing.size)
            assert claim.place in (None, thing.place)
        assert each.background in (None, drawn.background)
        assert each.style in (None, drawn.style)


def test_no_colour_and_no_kind_is_said_that_is_not_claimed() -> None:
    lands = [way for name in BACKGROUNDS for way in ways("background", name)]
    for each in CAPTIONS:
        text = each.text
        for land in sorted(lands, key=len, reverse=True):
            text = text.replace(land, "")
        words = text.replace(",", " ").replace(".", " ").split()
        assert {word for word in words if word in COLOURS} == {claim.colour for claim in each.claims} - {None}
        nouns = {kind for kind in KINDS for noun in KINDS[kind] if noun in words}
        assert nouns <= {claim.kind for claim in each.claims}, each.text


def test_two_that_are_alike_are_told_as_two() -> None:
    pair = tuple(Thing("fish", "red", "small", x, 0.5) for x in (0.25, 0.75))
    captions = [said(Scene(pair, "sea", "flat", 0.6, 0), number) for number in range(100)]
    told = [each for each in captions if each.claims[0] == each.claims[1]]
    assert len(told) > 50
    assert all("two " in each.text and "a red" not in each.text for each in told)
    assert {each.claims[0].place for each in told} == {None}


def test_two_of_a_kind_that_differ_are_told_as_two_without_what_differs() -> None:
    pair = (Thing("house", "red", "small", 0.25, 0.5), Thing("house", "white", "small", 0.75, 0.5))
    for number in range(100):
        each = said(Scene(pair, "sea", "flat", 0.6, 0), number)
        if "two " in each.text:
            assert [claim.colour for claim in each.claims] == [None, None]


@pytest.mark.parametrize("noun", ["fish", "crescent moon", "house"])
def test_more_than_one(noun: str) -> None:
    assert natural.plural(noun) == {"fish": "fish", "crescent moon": "crescent moons", "house": "houses"}[noun]


def test_the_article_goes_with_the_word_after_it() -> None:
    claim = Claim("fish", "orange", None, None)
    texts = [natural.sentence((claim,), None, None, None, np.random.default_rng(number)) for number in range(300)]
    assert any("an orange" in text for text in texts)
    assert not any(f"a {vowel}" in text for text in texts for vowel in ("orange", "old"))


def test_without_a_share_captions_are_as_they_were() -> None:
    for number, drawn in enumerate(SCENES[:100]):
        plain = caption(drawn, np.random.default_rng(number))
        assert plain == caption(drawn, np.random.default_rng(number), natural=0.0)
