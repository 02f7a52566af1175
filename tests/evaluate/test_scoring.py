"""Each suite scores what it says and nothing else: artists that draw true renders, spoilt in one thing."""

from dataclasses import replace

import pytest
from artists import Perfect, Spoil, measured
from PIL import Image

from sfumato.evaluate.editing import STRENGTHS
from sfumato.evaluate.edits import EDITS
from sfumato.evaluate.measure import TITLES
from sfumato.evaluate.rows import LEARNED, RULES
from sfumato.evaluate.suites import SUITES
from sfumato.scenes.scene import Scene, Thing
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, SIZES, STYLES


def after(names: dict[str, object], name: str) -> str:
    """The name that follows in a vocabulary, the first one after the last."""
    order = list(names)
    return order[(order.index(name) + 1) % len(order)]


def each_thing(change: dict[str, dict[str, object]]) -> Spoil:
    """Every thing with the next name of an attribute."""

    def spoil(scene: Scene) -> Scene:
        return replace(scene, things=tuple(spoilt(thing) for thing in scene.things))

    def spoilt(thing: Thing) -> Thing:
        return replace(thing, **{name: after(names, getattr(thing, name)) for name, names in change.items()})

    return spoil


def mirrored(scene: Scene) -> Scene:
    """Everything in another column: left to the middle, the middle to the right, right to the left."""
    moved = [replace(thing, x=thing.x + 0.25 if thing.x < 0.6 else thing.x - 0.5) for thing in scene.things]
    return replace(scene, things=tuple(moved))


def exchanged(scene: Scene) -> Scene:
    """Each of two things at the other's place."""
    first, second = scene.things
    return replace(scene, things=(replace(first, x=second.x, y=second.y), replace(second, x=first.x, y=first.y)))


def recoloured(scene: Scene) -> Scene:
    """Each of two things in the other's colour."""
    first, second = scene.things
    return replace(scene, things=(replace(first, colour=second.colour), replace(second, colour=first.colour)))


def another(scene: Scene) -> Scene:
    """One thing more."""
    return replace(scene, things=(*scene.things, Thing("ball", "red", "small", 0.9, 0.9)))


def fewer(scene: Scene) -> Scene:
    """One thing less."""
    return replace(scene, things=scene.things[:-1])


SPOILT: list[tuple[str, Spoil, set[str]]] = [
    ("one", each_thing({"colour": COLOURS}), {"colour"}),
    ("one", each_thing({"kind": KINDS}), {"kind"}),
    ("one", each_thing({"size": SIZES}), {"size"}),
    ("one", another, {"count"}),
    ("one", lambda scene: replace(scene, background=after(BACKGROUNDS, scene.background)), {"background"}),
    ("two", each_thing({"colour": COLOURS}), {"colour"}),
    ("unseen", each_thing({"colour": COLOURS}), {"colour"}),
    ("binding", recoloured, {"colour"}),
    ("counting", fewer, {"count"}),
    ("counting", another, {"count"}),
    ("position", mirrored, {"place"}),
    ("relation", exchanged, {"relation"}),
    ("size", each_thing({"size": SIZES}), {"size"}),
    ("background", lambda scene: replace(scene, background=after(BACKGROUNDS, scene.background)), {"background"}),
    ("style", lambda scene: replace(scene, style=after(STYLES, scene.style)), {"style"}),
]


@pytest.mark.parametrize("suite", TITLES)
def test_true_renders_are_right_in_everything(suite: str) -> None:
    report = measured(suite)
    sources = [f"strength {s:g}" for s in STRENGTHS] if suite == "img2img" else ["model"]
    for source in (*sources, "renders"):
        for reader in (LEARNED, RULES, "agreement"):
            assert {figure.share for figure in report.row(suite, source, reader).figures} == {1.0}


@pytest.mark.parametrize(("suite", "spoil", "wrong"), SPOILT)
def test_what_is_drawn_wrong_is_wrong_alone(suite: str, spoil: Spoil, wrong: set[str]) -> None:
    report = measured(suite, spoil)
    shares = {figure.attribute: figure.share for figure in report.row(suite).figures}
    assert shares.pop("strict") < 1  # not always 0: some captions do not say what is wrong
    assert {name for name, share in shares.items() if share == 0} == wrong
    assert {share for name, share in shares.items() if name not in wrong} <= {1.0}
    assert report.row(suite, "renders").figure("strict").share == 1


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_scores_the_attributes_that_it_names(suite: str) -> None:
    figures = [figure.attribute for figure in measured(suite).row(suite).figures]
    assert set(figures) - {"strict"} <= set(SUITES[suite].scored)
    assert SUITES[suite].says is None or len(figures) == len(SUITES[suite].scored) + 1


def test_pictures_of_no_words_and_of_other_words_are_not_what_was_asked_for() -> None:
    report = measured("one")
    assert report.row("one", "empty").figure("kind").share == 0
    assert report.row("one", "shuffled").figure("strict").share == 0


def test_a_picture_left_as_it_was_keeps_its_layout_and_has_nothing_new() -> None:
    report = measured("img2img")
    assert report.row("img2img", "start").figure("kind").share == 1
    assert report.row("img2img", "start").figure("place").share == 1
    assert report.row("img2img", "start").figure("changed").share == 0


def test_a_thing_that_moves_in_img2img_is_the_new_one_at_a_wrong_place() -> None:
    row = measured("img2img", mirrored).row("img2img", "strength 0.4")
    assert (row.figure("place").share, row.figure("kind").share, row.figure("changed").share) == (0, 1, 1)


def test_half_of_the_exchanges_are_of_colour_and_half_of_background() -> None:
    report = measured("img2img", each_thing({"colour": COLOURS}), count=16)
    assert report.row("img2img", "strength 0.2").figure("changed").share == 0.5


def test_without_the_thing_in_the_mask_inpainting_is_wrong_but_for_what_was_there() -> None:
    row = measured("inpainting", fewer).row("inpainting")
    assert {figure.attribute: figure.share for figure in row.figures} == {
        "colour": 0,
        "kind": 0,
        "kept": 1,
        "outside": 1,
        "strict": 0,
    }


class Careless(Perfect):
    """Changes one byte far from the mask."""

    def repaint(self, picture: Image.Image, mask: Image.Image, prompt: str, number: int) -> Image.Image:
        made = super().repaint(picture, mask, prompt, number)
        outside = next((x, y) for y in range(self.side) for x in range(self.side) if mask.getpixel((x, y)) == 0)
        red, green, blue = made.getpixel(outside)
        made.putpixel(outside, (red ^ 1, green, blue))
        return self.world.show(made, self._edit(prompt, number).after)


def test_one_byte_outside_of_the_mask_is_seen() -> None:
    row = measured("inpainting", make=Careless).row("inpainting")
    assert (row.figure("outside").share, row.figure("kind").share, row.figure("strict").share) == (0, 1, 0)


def test_the_pictures_of_edits_lie_beside_those_before() -> None:
    for suite in EDITS:
        assert all(sample.before is not None for sample in measured(suite).samples)
