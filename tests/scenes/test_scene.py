"""Scenes are values of (seed, index), and the splits never share what they keep apart."""

import pytest

from sfumato.scenes.scene import JITTER, Scene, place_at, scene
from sfumato.scenes.vocabulary import COLUMNS, PLACES, ROWS, UNSEEN_PAIRS

SPLITS = ("train", "held_out", "unseen_pairs")


def combination(drawn: Scene) -> tuple[str, ...]:
    """What the splits keep apart: the first thing's attributes and the background."""
    first = drawn.things[0]
    return first.kind, first.colour, first.size, first.place, drawn.background


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_arguments_give_the_same_scene(split: str) -> None:
    assert scene(5, 17, split, (1.0, 1.0)) == scene(5, 17, split, (1.0, 1.0))
    assert scene(5, 17, split) != scene(5, 18, split)
    assert scene(5, 17, split) != scene(6, 17, split)


def test_no_held_out_combination_is_ever_trained_on() -> None:
    trained = {combination(scene(1, index)) for index in range(3000)}
    held_out = {combination(scene(2, index, "held_out")) for index in range(300)}
    assert len(trained) > 2000
    assert len(held_out) > 200
    assert not trained & held_out


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_unseen_pairs_are_shown_by_no_other_split_in_any_thing(split: str) -> None:
    drawn = [scene(3, index, split, (1.0, 1.0, 1.0)) for index in range(400)]
    assert not {(thing.kind, thing.colour) for each in drawn for thing in each.things} & UNSEEN_PAIRS


def test_the_unseen_split_shows_every_unseen_pair_and_nothing_else() -> None:
    drawn = [scene(3, index, "unseen_pairs") for index in range(100)]
    assert {(thing.kind, thing.colour) for each in drawn for thing in each.things} == UNSEEN_PAIRS


def test_counts_are_the_shares_of_scenes_with_so_many_things() -> None:
    numbers = [len(scene(4, index, counts=(0.5, 0.0, 0.5)).things) for index in range(400)]
    assert set(numbers) == {1, 3}
    assert 160 <= numbers.count(1) <= 240  # four standard deviations around 200


def test_a_place_is_the_one_whose_centre_is_nearest_whatever_the_jitter() -> None:
    for index, place in enumerate(PLACES):
        row, column = divmod(index, 3)
        for dx, dy in ((0.0, 0.0), (JITTER, -JITTER), (-JITTER, JITTER)):
            assert place_at(COLUMNS[column] + dx, ROWS[row] + dy) == place


def test_two_things_never_share_a_place() -> None:
    for index in range(300):
        places = [thing.place for thing in scene(8, index, counts=(0.0, 1.0, 1.0)).things]
        assert len(set(places)) == len(places)
