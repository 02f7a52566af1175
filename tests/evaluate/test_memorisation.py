"""Copies of training scenes are found, and new pictures are as far from them as held-out renders."""

import pytest
import torch

from sfumato.errors import RequestError
from sfumato.evaluate.memorisation import Training, memorised, nearest, neighbour_render, training_of
from sfumato.evaluate.readings import rendered
from sfumato.evaluate.suites import SUITES, cases

TRAINING = Training(scenes=40)
HELD_OUT = rendered([case.scene for case in cases(SUITES["one"], 20)], 64)


def test_copies_are_at_no_distance_from_their_scenes() -> None:
    numbers = [3, 17, 39]
    copies = rendered([TRAINING.scene(number) for number in numbers], 64)
    found = memorised(copies, HELD_OUT, HELD_OUT, TRAINING)
    assert found.drawn == pytest.approx(0, abs=0.01)  # renders are rounded to bytes, half of a level of 127.5
    assert found.ratio < 0.05
    assert found.suspicious == 1
    assert sorted(each.scene for each in found.nearest) == numbers
    assert neighbour_render(found, found.nearest[0]).tobytes() == found.nearest[0].picture.tobytes()


def test_new_renders_are_as_far_as_new_renders() -> None:
    found = memorised(HELD_OUT, HELD_OUT, HELD_OUT, TRAINING)
    assert found.ratio == 1
    assert found.suspicious == pytest.approx(1 / len(HELD_OUT))  # one of twenty is the nearest; a quantile interpolates
    distances = [each.distance for each in found.nearest]
    assert distances == sorted(distances)
    assert found.training.scenes == 40


def test_the_nearest_is_the_one_of_least_mean_square() -> None:
    pictures, known = torch.tensor([[0.0, 0.0], [4.0, 4.0]]), torch.tensor([[1.0, 7.0], [3.0, 4.0], [1.0, 1.0]])
    distances, numbers = nearest(pictures, known)
    assert numbers.tolist() == [2, 1]
    assert distances.tolist() == pytest.approx([1.0, 0.5**0.5])


@pytest.mark.parametrize(("given", "field"), [({"seed": -1}, "training_seed"), ({"scenes": 0}, "training_scenes")])
def test_training_that_cannot_be_is_refused_by_name(given: dict[str, int], field: str) -> None:
    with pytest.raises(RequestError) as refused:
        training_of(**given)
    assert refused.value.field == field


def test_training_is_the_embedded_models_unless_said_otherwise() -> None:
    assert training_of() == Training()
    assert training_of(5, 7) == Training(scenes=7, seed=5)
