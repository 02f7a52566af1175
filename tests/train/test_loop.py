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

from sfumato.errors import CheckpointError, ConfigError
from sfumato.train import checkpoint, loop
from sfumato.train.config import OptimizerConfig, RunConfig, TrainConfig
from sfumato.train.ema import Average
from sfumato.train.optimizer import make_optimizer
from sfumato.train.plan import Pass, generator, passes, sample_indices, seeded


class Line:
    """Fits a line to keyed noise: the smallest task that has everything."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        with seeded(config.run.seed):
            self.network = nn.Linear(3, 2)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"line": self.network}

    def inputs(self, part: Pass) -> Tensor:
        return part.normal(1, (3,))

    def loss(self, part: Pass, inputs: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        x = inputs
        loss = ((self.network(x) - x[:, :2] * 2) ** 2).mean()
        return loss, {"loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        return {"weight": float(self.network.weight.detach().sum())}

    def sheet(self) -> Image.Image | None:
        return Image.new("RGB", (4, 4))

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "line.json").write_text(json.dumps(self.network.weight.tolist()))


def configuration(folder: Path, steps: int = 6, save_every: int = 2) -> TrainConfig:
    run = RunConfig(
        output=str(folder), seed=5, steps=steps, batch=4, save_every=save_every, sheet_every=100, log_every=2
    )
    return TrainConfig(run=run, optimizer=OptimizerConfig(rate=0.05, warmup=8))


def weights(folder: Path, name: str = "weights") -> dict[str, Tensor]:
    return load_file(checkpoint.checkpoints(folder)[-1] / f"{name}.safetensors")


class Interrupted(Line):
    """Asks to stop, as Ctrl-C does, while it computes a given step."""

    def __init__(self, config: TrainConfig, at: int) -> None:
        super().__init__(config)
        self.at = at

    def loss(self, part: Pass, inputs: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        if part.step == self.at:
            import signal

            signal.raise_signal(signal.SIGINT)
        return super().loss(part, inputs)


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


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_step_is_the_same_in_one_pass_or_several(tmp_path: Path, accumulate: int) -> None:
    whole, parts = (configuration(tmp_path / name, steps=5) for name in ("whole", "parts"))
    whole = replace(whole, run=replace(whole.run, microbatch=1))
    parts = replace(parts, run=replace(parts.run, microbatch=1, accumulate=accumulate))
    for config in (whole, parts):
        loop.run(Line(config), config)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(one[key], other[key], rtol=1e-6, atol=1e-7) for key in one)
    # and the run may be resumed in another division than it was begun in
    longer = replace(whole, run=replace(whole.run, output=str(tmp_path / "parts"), steps=6))
    assert loop.run(Line(longer), longer, resume=True).step == 6


@pytest.mark.parametrize(("batch", "microbatch", "accumulate"), [(4, 3, 1), (4, 0, 2), (4, 2, 4), (4, 4, 0)])
def test_what_cannot_be_divided_is_refused(tmp_path: Path, batch: int, microbatch: int, accumulate: int) -> None:
    config = configuration(tmp_path / "run")
    run = replace(config.run, batch=batch, microbatch=microbatch, accumulate=accumulate)
    with pytest.raises(ConfigError, match=r"run\.microbatch"):
        loop.run(Line(config), replace(config, run=run))
    assert not (tmp_path / "run").exists()


def test_every_sample_and_number_of_a_step_is_drawn_once_however_it_is_divided() -> None:
    run = RunConfig(output="", steps=1, batch=24, microbatch=2, seed=3)
    [alone] = passes(run, step=7, seen=100)
    for ranks, accumulate in ((2, 1), (3, 4), (12, 1)):
        divided = replace(run, accumulate=accumulate)
        parts = [part for rank in range(ranks) for part in passes(divided, 7, 100, rank, ranks)]
        assert [number for part in parts for number in part.numbers] == list(range(100, 124)) == list(alone.numbers)
        for drawn in ("uniform", "strata"):
            assert torch.equal(torch.cat([getattr(part, drawn)(1) for part in parts]), getattr(alone, drawn)(1))
        assert torch.equal(torch.cat([part.normal(1, (2, 3)) for part in parts]), alone.normal(1, (2, 3)))


def test_strata_hold_one_number_from_each_part_of_the_step() -> None:
    parts = passes(RunConfig(output="", steps=1, batch=32, microbatch=4, accumulate=4), 0, 0)
    drawn = torch.cat([part.strata(2) for part in parts])
    assert sorted((drawn * 32).long().tolist()) == list(range(32))


def test_a_thousand_processes_see_each_sample_of_an_epoch_once() -> None:
    run = RunConfig(output="", steps=1, batch=4000, microbatch=4)
    pool, steps = 20_000, 5
    seen = [
        index
        for step in range(steps)
        for rank in range(1000)
        for part in passes(run, step, step * run.batch, rank, 1000)
        for index in sample_indices(9, part.numbers, pool)
    ]
    assert sorted(seen) == list(range(pool))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("cosine", [0.5, 2.0, 1.1, 0.2]), ("linear", [0.5, 2.0, 1.1, 0.2]), ("constant", [0.5, 2.0, 2.0, 2.0])],
)
def test_the_rate_rises_over_the_warm_up_and_then_follows_its_schedule(schedule: str, expected: list[float]) -> None:
    config = OptimizerConfig(rate=2.0, schedule=schedule, warmup=40, final=0.1)
    found = [loop.learning_rate(config, seen, 10, 1040) for seen in (0, 30, 540, 1040)]
    assert found == pytest.approx(expected)


def test_the_rate_of_a_sample_does_not_depend_on_the_batch_after_the_warm_up() -> None:
    config = OptimizerConfig(rate=2.0, warmup=40)
    for seen in (40, 100, 777):
        assert len({loop.learning_rate(config, seen, batch, 1000) for batch in (1, 10, 100)}) == 1


def test_the_inverse_root_falls_by_half_over_four_times_the_samples() -> None:
    config = OptimizerConfig(rate=2.0, schedule="inverse_root", warmup=100)
    assert loop.learning_rate(config, 400, 10, 1000) == pytest.approx(1.0)


def test_an_unknown_schedule_or_optimizer_is_named(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    for wrong in (OptimizerConfig(schedule="cosin"), OptimizerConfig(kind="sgd")):
        with pytest.raises(ConfigError, match=r"optimizer\.(schedule|kind) is one of .*; found"):
            loop.run(Line(config), replace(config, optimizer=wrong))


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
    first, second = (sample_indices(3, range(at, at + 10), 10) for at in (0, 10))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    pieces = [index for at in range(0, 20, 4) for index in sample_indices(3, range(at, at + 4), 10)]
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
    assert [line["step"] for line in lines] == [2, 4, 4]
    assert [line["samples"] for line in lines] == [8, 16, 16]
    assert all(math.isfinite(line["loss"]) for line in lines[:2])
    assert lines[2]["validation_weight"] == pytest.approx(
        float(weights(tmp_path, "average")["line/weight"].sum()), rel=1e-5
    )
    assert (tmp_path / "sheet-00000004.png").is_file()
    exported = torch.tensor(json.loads((tmp_path / "export" / "line.json").read_text()))
    assert torch.allclose(exported, weights(tmp_path, "average")["line/weight"])


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_a_rate_that_moves_nothing_or_nowhere_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.rate is .*a rate is a number above 0"):
        make_optimizer(OptimizerConfig(rate=rate), {"layer": nn.Linear(1, 1)})
