"""What is said at a draw: every rule, and that nothing but the draw decides."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.train.data.words import CaptionRules, spoken

TAGS = "one, two, three, four, five"
DRAWS = range(300)


def every(text: str, rules: CaptionRules) -> Counter[str]:
    return Counter(spoken([text], rules, draw) for draw in DRAWS)


@given(
    st.lists(st.text("ab,{}|\n ", max_size=20), min_size=1, max_size=3),
    st.integers(-(2**70), 2**70),
    st.builds(
        CaptionRules,
        shuffle=st.booleans(),
        keep=st.integers(0, 3),
        wildcard=st.booleans(),
        first_line=st.booleans(),
        tag_dropout=st.sampled_from([0.0, 0.5, 1.0]),
    ),
)
def test_the_same_draw_always_says_the_same(texts: list[str], draw: int, rules: CaptionRules) -> None:
    assert spoken(texts, rules, draw) == spoken(texts, rules, draw)


def test_without_rules_the_draw_counts_through_the_captions() -> None:
    assert [spoken(["a", "b\nc"], CaptionRules(), draw) for draw in (0, 1, 2, -1)] == ["a", "b\nc", "a", "b\nc"]


def test_shuffling_moves_all_tags_but_those_that_are_kept() -> None:
    seen = every(TAGS, CaptionRules(shuffle=True, keep=2))
    assert {text[:10] for text in seen} == {"one, two, "}
    assert len(seen) == 6
    assert all(sorted(text.split(", ")) == sorted(TAGS.split(", ")) for text in seen)


def test_the_keep_separator_fixes_what_stands_before_and_after() -> None:
    rules = CaptionRules(shuffle=True, keep_separator="|||", keep=1)
    assert set(every("a, b ||| c, d ||| e", rules)) == {"a, b, c, d, e", "a, b, d, c, e"}
    assert set(every("a ||| b", CaptionRules(keep_separator="|||"))) == {"a, b"}


def test_tags_are_dropped_as_often_as_asked_but_not_those_that_are_kept() -> None:
    seen = every(TAGS, CaptionRules(tag_dropout=0.25, keep=1))
    tags = Counter(tag for text, count in seen.items() for tag in text.split(", ") * count)
    assert tags["one"] == len(DRAWS)
    assert all(0.65 < tags[tag] / len(DRAWS) < 0.85 for tag in ("two", "three", "four", "five"))  # 4 deviations: 0.1


def test_dropout_leaves_no_words() -> None:
    assert 30 < every(TAGS, CaptionRules(dropout=0.2))[""] < 90  # 60 expected, 4 deviations: 28
    assert set(every(TAGS, CaptionRules(dropout=1.0))) == {""}


def test_wildcards_choose_a_line_and_an_option() -> None:
    rules = CaptionRules(wildcard=True, first_line=True, prefix="p", suffix="s")
    assert set(every("a {x|y}\n\n b {{z}}", rules)) == {"p a x s", "p a y s", "p b {z} s"}
    assert set(every("a {x|y}\nb", CaptionRules(first_line=True))) == {"a {x|y}"}


def test_a_secondary_separator_keeps_tags_together() -> None:
    rules = CaptionRules(shuffle=True, secondary_separator=";;;", separator=",")
    assert set(every("a;;;b, c", rules)) == {"a,b, c", "c, a,b"}


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_caption_stays_empty(text: str) -> None:
    assert spoken([text], CaptionRules(shuffle=True, wildcard=True), 3) == ""
