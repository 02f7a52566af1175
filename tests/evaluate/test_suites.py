"""The prompts of the suites: held out, the same every time, and with every attribute said often."""

import pytest

from sfumato.errors import RequestError
from sfumato.evaluate.suites import COMPLETE_EVERY, SUITES, cases, check, shuffled
from sfumato.scenes.scene import scene
from sfumato.scenes.vocabulary import UNSEEN_PAIRS


@pytest.mark.parametrize("name", SUITES)
def test_cases_are_the_same_every_time_and_a_longer_list_begins_with_a_shorter_one(name: str) -> None:
    assert cases(SUITES[name], 12) == cases(SUITES[name], 30)[:12]


@pytest.mark.parametrize(("name", "things"), [("one", 1), ("two", 2), ("unseen", 1)])
def test_a_suite_has_so_many_things(name: str, things: int) -> None:
    for case in cases(SUITES[name], 60):
        assert len(case.scene.things) == len(case.caption.claims) == things


@pytest.mark.parametrize("name", ["one", "two"])
def test_no_case_is_a_combination_that_is_trained_on(name: str) -> None:
    def combination(case: object) -> tuple[str, ...]:
        first = case.things[0]  # type: ignore[attr-defined]
        return first.kind, first.colour, first.size, first.place, case.background  # type: ignore[attr-defined]

    trained = {combination(scene(seed, index, counts=(1.0, 1.0))) for seed in (1, 11, 13) for index in range(1000)}
    assert not trained & {combination(case.scene) for case in cases(SUITES[name], 200)}


def test_the_unseen_suite_asks_for_pairs_that_no_training_scene_shows() -> None:
    for case in cases(SUITES["unseen"], 60):
        assert {(thing.kind, thing.colour) for thing in case.scene.things} <= UNSEEN_PAIRS


def test_every_attribute_is_said_in_at_least_half_of_200_prompts() -> None:
    captions = [case.caption for case in cases(SUITES["one"], 200)]
    for name in ("colour", "size", "place"):
        assert sum(getattr(caption.claims[0], name) is not None for caption in captions) >= 100, name
    for name in ("background", "style"):
        assert sum(getattr(caption, name) is not None for caption in captions) >= 100, name


def test_relations_are_said_often_of_two_things() -> None:
    captions = [case.caption for case in cases(SUITES["two"], 200)]
    assert 60 <= sum(caption.relation is not None for caption in captions) <= 140


def test_one_caption_in_three_is_complete() -> None:
    for case in cases(SUITES["one"], 30)[::COMPLETE_EVERY]:
        claim = case.caption.claims[0]
        assert None not in (claim.colour, claim.size, claim.place, case.caption.background, case.caption.style)


def test_shuffled_captions_are_all_there_and_none_is_its_own() -> None:
    among = cases(SUITES["one"], 20)
    others = shuffled(among)
    assert sorted(caption.text for caption in others) == sorted(case.caption.text for case in among)
    assert all(other is not case.caption for other, case in zip(others, among, strict=True))


@pytest.mark.parametrize(
    ("suites", "count", "field"), [(["one", "three"], 10, "suites"), ([], 10, "suites"), (["one"], 0, "count")]
)
def test_what_cannot_be_measured_is_refused_by_name(suites: list[str], count: int, field: str) -> None:
    with pytest.raises(RequestError) as refused:
        check(suites, count)
    assert refused.value.field == field
