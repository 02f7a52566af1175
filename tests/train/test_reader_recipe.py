"""The recipe of the reader: the truth that it teaches, and how it makes pictures worse."""

from pathlib import Path

import torch
from torch import nn

from sfumato.scenes.reader import Heads, load_reader, read
from sfumato.scenes.render import render
from sfumato.scenes.scene import scene
from sfumato.scenes.vocabulary import UNSEEN_PAIRS
from sfumato.train.config import DataConfig, RunConfig, TrainConfig
from sfumato.train.plan import Pass
from sfumato.train.reader import ReaderLoss, ReaderTask, Truth, reader_scene, reading_loss, truth, worsen

SURE = 20.0  # a logit


def config(output: Path, pool: int = 0) -> TrainConfig:
    run = RunConfig(output=str(output), seed=3, steps=2, batch=4)
    return TrainConfig(run=run, data=DataConfig(size=64, pool=pool, counts=(0.5, 0.5), seed=7_000_000))


def perfect(true: Truth) -> Heads:
    """Heads that say the truth, surely."""

    def sure(answer: torch.Tensor, names: int) -> torch.Tensor:
        return SURE * nn.functional.one_hot(answer, names).float()

    return Heads(
        presence=torch.logit(true.presence, eps=1e-6),
        offset=true.offset,
        kind=sure(true.kind, 10),
        colour=sure(true.colour, 8),
        size=sure(true.size, 3),
        style=sure(true.style, 3),
        background=sure(true.background, 6),
    )


class Answers(nn.Module):
    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, pixels: torch.Tensor) -> Heads:
        return self.heads


def test_heads_that_say_the_truth_are_read_as_the_scene() -> None:
    scenes = [scene(1, index, counts=(1.0, 1.0, 1.0)) for index in range(50)]
    readings = read(Answers(perfect(truth(scenes))), torch.zeros(50, 3, 64, 64))
    for reading, drawn in zip(readings, scenes, strict=True):
        assert (reading.background, reading.style) == (drawn.background, drawn.style)
        said = sorted((t.kind, t.colour, t.size, t.place) for t in drawn.things)
        assert sorted((t.kind, t.colour, t.size, t.place) for t in reading.things) == said
        for thing in drawn.things:
            # cells between two things vote for the nearer one, so that the centre is right but for rounding
            assert min(max(abs(t.x - thing.x), abs(t.y - thing.y)) for t in reading.things) < 1e-3


def test_the_truth_has_the_least_loss() -> None:
    scenes = [scene(1, index, counts=(1.0, 1.0)) for index in range(8)]
    true, others = truth(scenes), truth(scenes[::-1])
    least, parts = reading_loss(perfect(true), true, ReaderLoss())
    entropy = nn.functional.binary_cross_entropy(true.presence, true.presence)
    # all that is left is the entropy of presences between 0 and 1, which the loss counts four times
    assert abs(float(least) - 4 * float(entropy)) < 1e-4
    assert all(float(parts[name]) < 1e-4 for name in ("offset", "kind", "colour", "size", "style", "background"))
    assert float(reading_loss(perfect(others), true, ReaderLoss())[0]) > 10 * float(least)


def test_the_reader_learns_from_all_pairs_and_from_empty_pictures() -> None:
    scenes = [reader_scene(7_000_000, index, (0.5, 0.3, 0.2)) for index in range(400)]
    assert {(thing.kind, thing.colour) for drawn in scenes for thing in drawn.things} > UNSEEN_PAIRS
    assert 0 < sum(not drawn.things for drawn in scenes) < 40


def test_no_share_of_worse_pictures_leaves_them_as_they_are() -> None:
    pictures = render([scene(1, index) for index in range(4)], 64)
    assert torch.equal(worsen(pictures, 0.0, torch.Generator().manual_seed(1)), pictures)


def test_worse_pictures_differ_a_little_and_stay_in_range() -> None:
    pictures = render([scene(1, index) for index in range(16)], 64)
    worse = worsen(pictures, 1.0, torch.Generator().manual_seed(1))
    difference = (worse - pictures).abs().flatten(1).mean(dim=1)
    assert float(worse.abs().max()) <= 1
    assert bool((difference > 0).all())
    assert float(difference.max()) < 0.4  # of a range of 2
    assert torch.equal(worse, worsen(pictures, 1.0, torch.Generator().manual_seed(1)))


def test_a_step_is_the_same_whenever_it_is_computed(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    tasks = [ReaderTask(config(tmp_path)), ReaderTask(config(tmp_path, pool=8))]
    for task in tasks:
        one, other = Pass(7, 5, 4, 4, 4, 0, 1), Pass(7, 6, 0, 4, 4, 0, 1)
        first, _, again = (task.loss(part, task.inputs(part))[0] for part in (one, other, one))
        assert float(first.detach()) == float(again.detach())
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_export_is_a_reader(tmp_path: Path) -> None:
    task = ReaderTask(config(tmp_path))
    task.export(tmp_path / "export")
    assert len(read(load_reader(tmp_path / "export" / "reader.safetensors"), torch.zeros(2, 3, 128, 128))) == 2
