"""The prompts of the suites: held out, the same every time, and with every attribute said often."""

import numpy as np
import pytest
import torch

from sfumato.evaluate.edits import EDITS, additions, exchanges
from sfumato.evaluate.suites import COMPLETE_EVERY, SUITES, cases, saying, shuffled
from sfumato.scenes.render import layout
from sfumato.scenes.scene import scene
from sfumato.scenes.vocabulary import KINDS, UNSEEN_PAIRS


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


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.says is not None])
def test_a_caption_says_what_its_suite_asks_for_and_nothing_else(name: str) -> None:
    says = SUITES[name].says or ()
    for case in cases(SUITES[name], 12):
        for attribute in ("colour", "size", "place"):
            for claim in case.caption.claims:
                assert (getattr(claim, attribute) is not None) == (attribute in says)
        for attribute in ("background", "style", "relation"):
            assert (getattr(case.caption, attribute) is not None) == (attribute in says)


def test_bound_colours_and_related_things_are_of_two_kinds_and_two_colours() -> None:
    for name in ("binding", "relation"):
        for case in cases(SUITES[name], 30):
            first, second = case.scene.things
            assert first.kind != second.kind
            assert first.colour != second.colour


def test_counting_asks_in_turn_for_one_thing_two_alike_and_two_others() -> None:
    kinds = [[thing.kind for thing in case.scene.things] for case in cases(SUITES["counting"], 9)]
    assert [(len(each), len(set(each))) for each in kinds] == [(1, 1), (2, 1), (2, 2)] * 3


def test_seeds_of_suites_are_their_own() -> None:
    seeds = [suite.seed for suite in (*SUITES.values(), *EDITS.values())]
    assert len(set(seeds)) == len(seeds)


def test_an_exchange_changes_one_attribute_and_says_the_new_scene() -> None:
    for index, edit in enumerate(exchanges(20)):
        (before,), (after,) = edit.before.things, edit.after.things
        assert (before.kind, before.size, before.x, before.y) == (after.kind, after.size, after.x, after.y)
        changed = [before.colour != after.colour, edit.before.background != edit.after.background]
        assert changed == [index % 2 == 0, index % 2 == 1]
        assert edit.caption.claims[0].colour == after.colour
        assert edit.caption.background == edit.after.background
        assert (after.kind, after.colour) not in UNSEEN_PAIRS


def test_a_mask_holds_the_thing_to_be_and_leaves_the_other_one_out() -> None:
    for edit in additions(20):
        other, thing = edit.after.things
        assert edit.before.things == (other,)
        kinds, _ = layout([edit.after], 64)
        inside = torch.from_numpy(np.array(edit.mask(64)) > 0)
        assert set(kinds[0][inside].tolist()) <= {0, 1 + list(KINDS).index(thing.kind)}
        assert int((kinds[0] > 0).sum()) > int((kinds[0][inside] > 0).sum())  # the other one is outside
        assert edit.caption.claims[0].kind == thing.kind


def test_saying_nothing_names_the_kind_alone() -> None:
    (case,) = cases(SUITES["one"], 1)
    said = saying(case.scene, (), np.random.default_rng(1))
    assert (said.claims[0].colour, said.background, said.style) == (None, None, None)
