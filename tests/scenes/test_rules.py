"""The reader of rules on true renders."""

from collections import Counter

import pytest
import torch

from sfumato.scenes.lands import land_of, style_of
from sfumato.scenes.reader import Reading
from sfumato.scenes.render import render
from sfumato.scenes.rules import read_by_rules
from sfumato.scenes.scene import Scene, Thing, scene
from sfumato.scenes.silhouettes import best_match, templates
from sfumato.scenes.vocabulary import BACKGROUNDS, KINDS, SIZES, STYLES

COUNT = 60


def rights(drawn: Scene, reading: Reading) -> list[str]:
    """What is read rightly of a scene of one thing."""
    (thing,), seen = drawn.things, reading.things[:1]
    names = [
        name for name in ("kind", "colour", "size", "place") if seen and getattr(seen[0], name) == getattr(thing, name)
    ]
    whole = [name for name in ("background", "style") if getattr(reading, name) == getattr(drawn, name)]
    return [*names, *whole, *["count"] * (len(reading.things) == 1)]


def test_scenes_of_one_thing_are_read_right_in_nine_of_ten() -> None:
    scenes = [scene(55, index, "held_out") for index in range(COUNT)]
    right = Counter(
        name for s, r in zip(scenes, read_by_rules(render(scenes, 128)), strict=True) for name in rights(s, r)
    )
    for name in ("kind", "colour", "size", "place", "background", "style", "count"):
        assert right[name] >= 0.9 * COUNT, (name, right[name])


def test_most_scenes_of_two_things_have_two_things() -> None:
    scenes = [scene(56, index, "held_out", (0.0, 1.0)) for index in range(20)]
    assert sum(len(reading.things) == 2 for reading in read_by_rules(render(scenes, 128))) >= 16


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_empty_scene_has_a_background_and_a_style_and_nothing_in_it(background: str, style: str) -> None:
    empty = Scene((), background, style, 0.61, 7)
    (reading,) = read_by_rules(render([empty], 128))
    assert (reading.background, reading.style, reading.things) == (background, style, ())


def test_a_reading_is_of_one_picture_whatever_its_company() -> None:
    pixels = render([scene(57, index) for index in range(3)], 64)
    assert read_by_rules(pixels) == [reading for one in pixels for reading in read_by_rules(one[None])]


def test_the_centre_is_that_of_the_thing() -> None:
    placed = Scene((Thing("ball", "red", "medium", 0.31, 0.42),), "grass", "flat", 0.6, 3)
    (thing,) = read_by_rules(render([placed], 128))[0].things
    assert (thing.x, thing.y) == pytest.approx((0.31, 0.42), abs=0.02)  # a pixel of the 64 that are read


def test_noise_has_no_thing_that_is_certain() -> None:
    noise = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert all(thing.sure < 0.8 for reading in read_by_rules(noise) for thing in reading.things)


def test_ink_is_outline_steps_are_flat_and_slopes_are_shaded() -> None:
    drawn = {style: (render([Scene((), "sea", style, 0.6, 1)], 64)[0] + 1) / 2 for style in STYLES}
    assert {style: style_of(colours) for style, colours in drawn.items()} == {style: style for style in STYLES}
    assert {land_of(colours, style).background for style, colours in drawn.items()} == {"sea"}


def test_each_silhouette_is_most_like_itself() -> None:
    among = templates(64, inked=False)
    assert len(among) == len(KINDS) * len(SIZES)
    for template in among:
        match = best_match(template.whole, template.painted, among)
        assert (match.kind, match.size) == (template.kind, template.size)
        assert match.likeness == pytest.approx(1)
