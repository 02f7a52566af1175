"""Shares, intervals and rows, against published values and made by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.evaluate.rows import Figure, agreement, summarise, wilson
from sfumato.scenes.score import Mark, Score

RIGHT = Score((Mark("kind", "star", "star", True), Mark("colour", "red", "red", True)))
WRONG = Score((Mark("kind", "star", "moon", False), Mark("colour", "red", "red", True)))
UNSAID = Score((Mark("kind", "star", "star", True),))


@pytest.mark.parametrize(
    ("right", "said", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (Wilson's score without continuity correction)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(right: int, said: int, low: float, high: float) -> None:
    assert wilson(right, said) == pytest.approx((low, high), abs=5e-5)  # four digits are printed there


def test_the_interval_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Figure("kind", 0, 0).share)


@given(st.integers(1, 10_000).flatmap(lambda said: st.tuples(st.integers(0, said), st.just(said))))
def test_the_interval_holds_the_share_and_is_symmetric_under_exchange(shares: tuple[int, int]) -> None:
    right, said = shares
    low, high = wilson(right, said)
    assert 0 <= low <= right / said <= high <= 1
    assert wilson(said - right, said) == pytest.approx((1 - high, 1 - low))


@given(st.integers(1, 500).flatmap(lambda said: st.tuples(st.integers(0, said), st.just(said))))
def test_more_pictures_with_the_same_share_make_a_narrower_interval(shares: tuple[int, int]) -> None:
    right, said = shares
    (low, high), (lower, higher) = wilson(4 * right, 4 * said), wilson(right, said)
    assert lower <= low + 1e-12
    assert high <= higher + 1e-12


@given(st.integers(1, 500).flatmap(lambda said: st.tuples(st.integers(0, said - 1), st.just(said))))
def test_one_more_that_is_right_moves_both_bounds_up(shares: tuple[int, int]) -> None:
    right, said = shares
    (low, high), (lower, higher) = wilson(right + 1, said), wilson(right, said)
    assert low > lower
    assert high > higher or high == 1


def test_a_row_counts_what_was_said_and_strict_counts_pictures() -> None:
    row = summarise("one", "model", [RIGHT, WRONG, UNSAID])
    assert [(f.attribute, f.right, f.said) for f in row.figures] == [("colour", 2, 2), ("kind", 2, 3), ("strict", 2, 3)]
    assert row.pictures == 3
    assert row.figure("kind").share == pytest.approx(2 / 3)


def test_readers_agree_where_they_see_the_same_right_or_wrong() -> None:
    other = Score((Mark("kind", "star", "ball", False), Mark("colour", "red", "red", True)))
    row = agreement("one", "model", [RIGHT, WRONG, WRONG], [WRONG, WRONG, other])
    assert [(f.attribute, f.right, f.said) for f in row.figures] == [("colour", 3, 3), ("kind", 1, 3), ("strict", 1, 3)]
    assert row.reader == "agreement"


def test_readers_agree_on_a_relation_that_both_see_whatever_they_call_it() -> None:
    """Up and to the left is left of it as well as above it."""
    one, two = (Score((Mark("relation", "above", seen, True),)) for seen in ("above", "left of"))
    assert agreement("two", "model", [one], [two]).figure("relation").share == 1
