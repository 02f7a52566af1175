"""Colours without a name: never said, never near what a kind is never seen in, and drawn as they are."""

import numpy as np
import pytest
import torch

from sfumato.errors import ConfigError
from sfumato.scenes.captions import caption
from sfumato.scenes.palettes import DARKER, PALER, hexadecimal, paints
from sfumato.scenes.render import NAMELESS, layout, render
from sfumato.scenes.scene import Scene, Thing, scene
from sfumato.scenes.unnamed import nearest, repainted
from sfumato.scenes.vocabulary import COLOURS, UNSEEN_PAIRS
from sfumato.train.config import DataConfig, RunConfig, TrainConfig
from sfumato.train.data import World, open_samples
from sfumato.train.layout import LayoutHead, layout_loss
from sfumato.train.reader import ReaderTask


def drawn(number: int, share: float = 1.0) -> Scene:
    return repainted(scene(3, number, counts=(0.5, 0.5)), 3, number, share)


def rgb(colour: str) -> tuple[float, float, float]:
    return paints(colour)[0]


def test_no_thing_is_nearest_to_the_colour_that_its_kind_is_never_seen_in() -> None:
    things = [thing for number in range(1500) for thing in drawn(number).things]
    assert all(thing.colour.startswith("#") for thing in things)
    seen = {(thing.kind, nearest(rgb(thing.colour))) for thing in things}
    assert not seen & UNSEEN_PAIRS
    assert {colour for _, colour in seen} == set(COLOURS)  # but all others are


def test_the_share_is_that_of_the_things_and_all_else_stays() -> None:
    pairs = [(scene(3, number, counts=(0.5, 0.5)), drawn(number, 0.3)) for number in range(800)]
    changed = [
        a.colour != b.colour for before, after in pairs for a, b in zip(before.things, after.things, strict=True)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.05)  # three deviations of 1,200 throws
    plain = [Thing(t.kind, "red", t.size, t.x, t.y) for before, _ in pairs for t in before.things]
    assert plain == [Thing(t.kind, "red", t.size, t.x, t.y) for _, after in pairs for t in after.things]
    assert drawn(5) == drawn(5)
    assert drawn(5, 0.0) == scene(3, 5, counts=(0.5, 0.5))


def test_a_colour_without_a_name_is_never_said() -> None:
    for number in range(100):
        said = caption(drawn(number), np.random.default_rng(number), complete=True)
        assert "#" not in said.text
        assert all(claim.colour is None for claim in said.claims)


def test_a_thing_is_drawn_in_its_colour() -> None:
    colour = (0.2, 0.8, 0.6)
    picture = render([Scene((Thing("heart", hexadecimal(colour), "large", 0.5, 0.5),), "grass", "flat", 0.6, 1)], 128)
    middle = (picture[0, :, 60, 64] + 1) / 2
    assert middle.tolist() == pytest.approx(colour, abs=0.05)  # a scene tints its things by up to 0.02


def test_named_colours_have_the_paints_of_the_tables() -> None:
    for name in COLOURS:
        assert paints(name) == (COLOURS[name], DARKER[name], PALER[name])
        assert nearest(COLOURS[name]) == name


def test_the_layout_head_is_asked_for_the_kind_alone() -> None:
    one = Scene((Thing("ball", "#123456", "large", 0.5, 0.5),), "grass", "flat", 0.6, 1)
    kinds, colours = layout([one])
    assert (colours == NAMELESS).sum() == (kinds > 0).sum() > 0
    answers = tuple(torch.randn(1, size, 16, 16, requires_grad=True) for size in LayoutHead(4).sizes)
    layout_loss(answers, (kinds, colours), torch.ones(1, dtype=torch.bool), 1).backward()
    slopes = [answer.grad.abs().sum(1)[kinds > 0] for answer in answers if answer.grad is not None]
    assert (slopes[0] > 0).all()
    assert (slopes[1] == 0).all()


def test_the_drawn_world_as_data() -> None:
    named, unnamed = World(DataConfig(seed=3, pool=8)), World(DataConfig(seed=3, pool=8, unnamed=1.0))
    assert named.identity != unnamed.identity  # latents are kept by it
    assert unnamed.scenes([4]) == [repainted(named.scenes([4])[0], 3, 4, 1.0)]
    with pytest.raises(ConfigError, match=r"data\.unnamed must be a share from 0 to 1, found 1\.5"):
        World(DataConfig(unnamed=1.5))
    with pytest.raises(ConfigError, match=r"data\.unnamed paints things of the drawn world"):
        open_samples(DataConfig(source="somewhere", unnamed=0.5))


def test_a_reader_is_not_taught_colours_that_it_has_no_word_for() -> None:
    config = TrainConfig(run=RunConfig(output="nowhere", steps=1, batch=1), data=DataConfig(unnamed=0.5))
    with pytest.raises(ConfigError, match="a reader has no word for"):
        ReaderTask(config)
