"""What is told in the course of a run, and of several prompts at once, against the formulas."""

import pytest
import torch
from torch import Tensor

from sfumato.text.encode import Conditioning
from sfumato.text.told import Composition, Course, Share, alike, together


def words(value: float, count: int = 1, length: int = 3) -> Conditioning:
    return Conditioning(torch.full((count, length, 2), value))


def value(told: Conditioning) -> list[float]:
    return told.context[:, 0, 0].tolist()


def test_a_course_changes_below_its_levels() -> None:
    course = Course((5.0, 2.0), (words(1), words(2), words(3)))
    assert [value(course.at(sigma))[0] for sigma in (9.0, 5.1, 5.0, 2.1, 2.0, 0.0)] == [1, 1, 2, 2, 3, 3]
    doubled = course.each(lambda each: Conditioning(each.context * 2))
    assert value(doubled.at(3.0)) == [4]
    assert len(course) == 1


def test_what_goes_together_changes_where_any_of_it_does() -> None:
    first = Course((5.0,), (words(1), words(2)))
    second = Course((5.0, 2.0), (words(3), words(4), words(5)))
    joined = together([first, words(9), second])
    assert isinstance(joined, Course)
    assert joined.levels == (5.0, 2.0)
    assert [value(joined.at(sigma)) for sigma in (6.0, 5.0, 3.0, 2.0, 0.1)] == [
        [1, 9, 3],
        [2, 9, 4],
        [2, 9, 4],
        [2, 9, 5],
        [2, 9, 5],
    ]
    assert value(together([words(1), words(2)]).at(1.0)) == [1, 2]
    with pytest.raises(ValueError, match="lengths"):
        together([words(1), words(2, length=6)])


def answers(*values: float) -> list[Tensor]:
    return [torch.full((1, 4, 2, 2), float(each)) for each in values]


def test_a_composition_adds_what_each_prompt_adds() -> None:
    told = Composition((Share(words(1), 1.0), Share(words(2), 0.5), Share(words(3), -0.25)), words(0))
    assert value(told.asked(answers(0)[0]).at(1.0)) == [0, 1, 2, 3]
    expected = 10 + 1.0 * (14 - 10) + 0.5 * (20 - 10) - 0.25 * (2 - 10)
    assert torch.equal(told.answer(answers(10, 14, 20, 2)), answers(expected)[0])
    both = together([words(0), told])
    assert isinstance(both, Composition)
    assert len(both) == 2
    assert torch.equal(both.answer(answers(10, 14, 20, 2)), torch.cat(answers(10, expected)))


def test_places_that_share_the_picture_need_no_negative_answer() -> None:
    left = torch.tensor([[1.0, 0.0], [1.0, 0.25]])[None, None]
    told = Composition((Share(words(1), 1.0, left), Share(words(2), 1.0, 1 - left)), words(0))
    assert value(told.asked(answers(0)[0]).at(1.0)) == [1, 2]
    found = told.answer(answers(8, 4))
    assert found[0, 0].tolist() == [[8, 4], [8, 5]]
    assert value(together([words(0), told]).asked(answers(0)[0]).at(1.0)) == [0, 1, 2]


def test_compositions_go_together_if_their_shares_are_alike() -> None:
    def told(first: float, weight: float = 0.5) -> Composition:
        return Composition((Share(words(first)), Share(words(first + 1), weight)), words(0))

    joined = together([told(1), told(5)])
    assert isinstance(joined, Composition)
    assert [value(share.told.at(1.0)) for share in joined.shares] == [[1, 5], [2, 6]]
    assert value(joined.negative.at(1.0)) == [0, 0]
    assert alike(told(1)) == alike(told(5)) != alike(told(1, 0.4))
    with pytest.raises(ValueError, match="different shares"):
        together([told(1), told(5, 0.4)])
