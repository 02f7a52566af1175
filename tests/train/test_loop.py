"""The loop: a run is the same whether it was interrupted or not, and nothing that stood is lost."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from sfumato.errors import CheckpointError
from sfumato.train import checkpoint, loop
from sfumato.train.config import OptimizerConfig, RunConfig, TrainConfig
from sfumato.train.ema import Average
from sfumato.train.plan import generator, sample_indices, seeded


class Line:
    """Fits a line to keyed noise: the smallest task that has everything."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        with seeded(config.run.seed):
            self.network = nn.Linear(3, 2)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"line": self.network}

    def loss(self, step: int, microbatch: int, first: int, count: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        x = torch.randn((count, 3), generator=generator(self.config.run.seed, step, microbatch, 1))
        loss = ((self.network(x) - x[:, :2] * 2) ** 2).mean()
        return loss, {"loss": loss.detach()}

    def sheet(self) -> Image.Image | None:
        return Image.new("RGB", (4, 4))

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "line.json").write_text(json.dumps(self.network.weight.tolist()))


def configuration(folder: Path, steps: int = 6, save_every: int = 2) -> TrainConfig:
    run = RunConfig(
        output=str(folder), seed=5, steps=steps, batch=4, save_every=save_every, sheet_every=100, log_every=2
    )
    return TrainConfig(run=run, optimizer=OptimizerConfig(rate=0.05, warmup=2))


def weights(folder: Path, name: str = "weights") -> dict[str, Tensor]:
    return load_file(checkpoint.checkpoints(folder)[-1] / f"{name}.safetensors")


class Interrupted(Line):
    """Asks to stop, as Ctrl-C does, while it computes a given step."""

    def __init__(self, config: TrainConfig, at: int) -> None:
        super().__init__(config)
        self.at = at

    def loss(self, step: int, microbatch: int, first: int, count: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        if step == self.at:
            import signal

            signal.raise_signal(signal.SIGINT)
        return super().loss(step, microbatch, first, count)


def test_a_run_that_was_interrupted_twice_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    whole, parts = configuration(tmp_path / "whole"), configuration(tmp_path / "parts")
    loop.run(Line(whole), whole)
    assert loop.run(Interrupted(parts, 1), parts).step == 2
    assert loop.run(Interrupted(parts, 4), parts, resume=True).step == 5
    assert loop.run(Line(parts), parts, resume=True).step == 6
    for name in ("weights", "average", "optimizer"):
        one, other = weights(tmp_path / "whole", name), weights(tmp_path / "parts", name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    config = configuration(tmp_path, steps=2)
    loop.run(Line(config), config)
    with pytest.raises(CheckpointError, match="already holds a run"):
        loop.run(Line(config), config)


def test_a_run_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    config = configuration(tmp_path, steps=2)
    loop.run(Line(config), config)
    other = replace(config, optimizer=replace(config.optimizer, rate=0.1))
    with pytest.raises(CheckpointError, match=r"optimizer.rate was 0.05, now 0.1"):
        loop.run(Line(other), other, resume=True)


def test_only_the_newest_checkpoints_are_kept_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    config = configuration(tmp_path, steps=6)
    loop.run(Line(config), config)
    (tmp_path / "step-00000099").mkdir()
    names = [path.name for path in checkpoint.checkpoints(tmp_path)]
    assert names == ["step-00000004", "step-00000006"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    config = configuration(tmp_path, steps=2)
    loop.run(Line(config), config)
    file = tmp_path / "step-00000002" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="step-00000002 is not a complete checkpoint"):
        loop.run(Line(config), config, resume=True)


def test_accumulated_microbatches_are_averaged(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    task = Line(config)
    task.loss(0, 0, 0, 4)[0].backward()
    first = task.network.weight.grad
    assert first is not None
    first = first.clone()
    task.network.zero_grad()
    task.loss(0, 1, 4, 4)[0].backward()
    second = task.network.weight.grad
    expected = (first + second) / 2
    seen: list[Tensor] = []

    class Watched(Line):
        def sheet(self) -> Image.Image | None:
            return None

    accumulated = replace(config, run=replace(config.run, steps=1, accumulate=2), optimizer=OptimizerConfig(clip=1e9))
    watched = Watched(accumulated)
    watched.network.weight.register_post_accumulate_grad_hook(
        lambda p: seen.append(p.grad.clone())  # type: ignore[union-attr]
    )
    loop.run(watched, accumulated)
    assert torch.allclose(seen[-1], expected, atol=1e-7)


def test_the_rate_warms_up_linearly_and_falls_along_half_a_cosine() -> None:
    config = OptimizerConfig(rate=2.0, warmup=4, final=0.1)
    assert loop.learning_rate(config, 0, 104) == 0.5
    assert loop.learning_rate(config, 3, 104) == 2.0
    assert loop.learning_rate(config, 54, 104) == pytest.approx(2.0 * 0.55)
    assert loop.learning_rate(config, 104, 104) == pytest.approx(0.2)


def test_the_average_follows_its_definition() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = Average({"n": network}, decay=0.5)
    expected = float(network.weight.detach())
    for step in range(5):
        with torch.no_grad():
            network.weight.fill_(float(step))
        average.update({"n": network}, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.weights["n"]["weight"]) == pytest.approx(expected, abs=1e-6)


def test_swapping_the_average_in_and_out_changes_nothing() -> None:
    network = nn.Linear(2, 2)
    average = Average({"n": network}, decay=0.9)
    with torch.no_grad():
        network.weight.add_(1)
    before, held = network.weight.clone(), average.weights["n"]["weight"].clone()
    average.swap({"n": network})
    assert torch.equal(network.weight, held)
    average.swap({"n": network})
    assert torch.equal(network.weight, before)


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    first, second = (sample_indices(3, at, 10, 10) for at in (0, 10))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    pieces = [index for at in range(0, 20, 4) for index in sample_indices(3, at, 4, 10)]
    assert pieces == first + second


def test_a_keyed_generator_depends_on_nothing_else() -> None:
    torch.rand(3)
    one = torch.rand(4, generator=generator(1, 2, 3, 4))
    assert torch.equal(one, torch.rand(4, generator=generator(1, 2, 3, 4)))
    assert not torch.equal(one, torch.rand(4, generator=generator(1, 2, 4, 3)))


def test_initialising_from_a_seed_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    with seeded(7):
        nn.Linear(3, 3)
    assert torch.equal(before, torch.get_rng_state())


def test_the_log_averages_and_the_sheet_and_export_are_written(tmp_path: Path) -> None:
    config = configuration(tmp_path, steps=4)
    loop.run(Line(config), config)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert [line["samples"] for line in lines] == [8, 16]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert (tmp_path / "sheet-00000004.png").is_file()
    exported = torch.tensor(json.loads((tmp_path / "export" / "line.json").read_text()))
    assert torch.allclose(exported, weights(tmp_path, "average")["line/weight"])
