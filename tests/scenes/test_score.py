"""Scores of readings made by hand."""

from dataclasses import replace

import pytest

from sfumato.scenes.captions import Caption, Claim
from sfumato.scenes.reader import Reading, ReadThing
from sfumato.scenes.score import holds, score

HOUSE = ReadThing("house", "red", "large", 0.25, 0.75)
STAR = ReadThing("star", "blue", "small", 0.75, 0.25)
BALL = ReadThing("ball", "green", "small", 0.5, 0.5)


def asked(
    *claims: Claim, background: str | None = None, style: str | None = None, relation: str | None = None
) -> Caption:
    return Caption("", claims, background, style, relation)


def seen(*things: ReadThing, background: str = "grass", style: str = "flat") -> Reading:
    return Reading(things, background, style)


def rights(reading: Reading, caption: Caption) -> dict[str, bool]:
    return {mark.attribute: mark.right for mark in score(reading, caption).marks}


def test_a_picture_of_all_that_was_said_is_strictly_right() -> None:
    caption = asked(Claim("house", "red", "large", "bottom left"), background="grass", style="flat")
    marked = score(seen(HOUSE), caption)
    assert marked.strict
    assert marked.wrong == ()
    assert sorted(mark.attribute for mark in marked.marks) == [
        "background",
        "colour",
        "count",
        "kind",
        "place",
        "size",
        "style",
    ]


def test_what_was_not_said_is_not_marked() -> None:
    assert rights(seen(HOUSE), asked(Claim("house", None, None, None))) == {"kind": True, "count": True}


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        ({"kind": "car"}, "kind"),
        ({"colour": "blue"}, "colour"),
        ({"size": "medium"}, "size"),
        ({"x": 0.5}, "place"),
    ],
)
def test_one_wrong_attribute_is_one_wrong_mark(change: dict[str, object], attribute: str) -> None:
    caption = asked(Claim("house", "red", "large", "bottom left"), background="grass")
    marked = score(seen(replace(HOUSE, **change)), caption)
    assert [mark.attribute for mark in marked.wrong] == [attribute]
    assert not marked.strict


def test_background_and_style_are_of_the_whole_picture() -> None:
    caption = asked(Claim("house", None, None, None), background="sea", style="outline")
    assert rights(seen(HOUSE), caption) == {"kind": True, "count": True, "background": False, "style": False}


def test_a_missing_thing_is_wrong_in_all_that_was_said_of_it() -> None:
    marked = score(seen(), asked(Claim("house", "red", None, "left")))
    assert all(not mark.right for mark in marked.marks)
    assert {mark.attribute: mark.seen for mark in marked.marks} == {
        "kind": None,
        "colour": None,
        "place": None,
        "count": "0",
    }


def test_things_are_matched_to_claims_whatever_their_order() -> None:
    caption = asked(Claim("star", "blue", None, None), Claim("house", "red", None, None))
    assert score(seen(HOUSE, STAR), caption).strict
    assert score(seen(STAR, HOUSE), caption).strict


def test_exchanged_colours_are_wrong_for_both_things() -> None:
    caption = asked(Claim("star", "red", None, None), Claim("house", "blue", None, None))
    marked = score(seen(HOUSE, STAR), caption)
    assert [(mark.attribute, mark.right) for mark in marked.marks if mark.attribute in ("kind", "colour")] == [
        ("kind", True),
        ("colour", False),
        ("kind", True),
        ("colour", False),
    ]


def test_one_thing_answers_one_claim_only() -> None:
    marked = score(seen(HOUSE), asked(Claim("house", "red", None, None), Claim("house", "red", None, None)))
    assert sum(mark.right for mark in marked.marks) == 2
    assert not marked.strict


def test_a_thing_too_many_is_a_wrong_count_and_nothing_else() -> None:
    marked = score(seen(BALL, HOUSE), asked(Claim("house", "red", "large", "bottom left")))
    assert [mark.attribute for mark in marked.wrong] == ["count"]
    assert (marked.wrong[0].said, marked.wrong[0].seen) == ("1", "2")


def test_three_things_are_matched_together() -> None:
    claims = [Claim(t.kind, t.colour, t.size, t.place) for t in (BALL, STAR, HOUSE)]
    assert score(seen(HOUSE, BALL, STAR), asked(*claims)).strict


@pytest.mark.parametrize(
    ("relation", "right"), [("left of", True), ("below", True), ("right of", False), ("above", False)]
)
def test_a_relation_holds_along_its_own_axis(relation: str, right: bool) -> None:
    """The house is left of the star and below it, as people would say of either."""
    caption = asked(Claim("house", None, None, None), Claim("star", None, None, None), relation=relation)
    assert rights(seen(STAR, HOUSE), caption)["relation"] is right


def test_a_relation_needs_a_tenth_of_the_picture() -> None:
    assert holds("left of", replace(BALL, x=0.39), BALL)
    assert not holds("left of", replace(BALL, x=0.41), BALL)


def test_a_relation_to_a_missing_thing_is_wrong() -> None:
    caption = asked(Claim("house", None, None, None), Claim("star", None, None, None), relation="below")
    marks = [mark for mark in score(seen(HOUSE), caption).marks if mark.attribute == "relation"]
    assert [(mark.seen, mark.right) for mark in marks] == [(None, False)]


def test_a_relation_chooses_between_things_that_are_alike() -> None:
    other = replace(HOUSE, x=0.75)
    claims = (Claim("house", "red", None, None), Claim("house", "red", None, None))
    for order in ((HOUSE, other), (other, HOUSE)):
        assert score(seen(*order), asked(*claims, relation="left of")).strict
