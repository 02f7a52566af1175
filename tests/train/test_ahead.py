"""Inputs that other processes make ahead: the same ones, in order, whoever makes them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_loop import Interrupted, Line, configuration, weights

from sfumato.errors import ConfigError, DataError
from sfumato.train import checkpoint, loop
from sfumato.train.ahead import ahead, count_workers
from sfumato.train.config import RunConfig
from sfumato.train.plan import Coming, passes

CPU, OTHER = torch.device("cpu"), torch.device("meta")


def run_of(**values: int) -> RunConfig:
    return RunConfig(output="run", steps=5, batch=4, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_made_ahead_comes_in_order_and_from_elsewhere(workers: int) -> None:
    def make(number: int) -> tuple[int, int]:
        return number * number, os.getpid()

    before = torch.random.get_rng_state()
    made = list(ahead(make, range(20), workers))
    assert [square for square, _ in made] == [number * number for number in range(20)]
    makers = {maker for _, maker in made}
    assert makers == {os.getpid()} if workers == 0 else len(makers) == 2 and os.getpid() not in makers
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_where_its_result_is_awaited(workers: int) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise DataError("picture 2 is broken")
        return number

    made: Iterator[int] = ahead(make, range(4), workers)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(DataError) as raised:
        next(made)
    assert str(raised.value) == "picture 2 is broken"


def test_a_run_has_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    alone, helped = configuration(tmp_path / "alone"), configuration(tmp_path / "helped")
    loop.run(Line(alone), alone)
    for workers, task in ((3, Interrupted(helped, 2)), (1, Line(helped))):
        loop.run(task, replace(helped, run=replace(helped.run, workers=workers)), resume=True)
    found, expected = weights(tmp_path / "helped"), weights(tmp_path / "alone")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_passes_that_come_are_those_of_every_step() -> None:
    run = run_of(microbatch=1, accumulate=2)
    expected = [part for step in range(2, 5) for part in passes(run, step, 8 + 4 * (step - 2))]
    assert list(Coming(run, 2, 8)) == expected


def test_workers_are_the_cores_that_a_device_leaves_idle() -> None:
    assert count_workers(run_of(), CPU, cores=8) == 0
    assert count_workers(run_of(), OTHER, cores=8) == 7
    assert count_workers(run_of(), OTHER, cores=1) == 0
    assert count_workers(run_of(workers=3), CPU, cores=8) == 3
    assert count_workers(run_of(workers=0), OTHER, cores=8) == 0
    with pytest.raises(ConfigError, match=r"run.workers is -2"):
        count_workers(run_of(workers=-2), OTHER)


def test_a_signal_to_all_processes_is_answered_by_the_one_that_trains(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SIGNALLED)
    process = subprocess.Popen([sys.executable, "run.py"], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True)
    for _ in range(600):
        if (tmp_path / "run" / "log.jsonl").is_file():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    assert b"DataLoader" not in errors
    done = json.loads((tmp_path / "done.json").read_text())
    assert 0 < done["step"] < 100_000
    assert checkpoint.checkpoints(tmp_path / "run")[-1].name.endswith(f"{done['step']}")


SIGNALLED = f"""
import json, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_loop import Line, configuration
from sfumato.train import loop

class Slow(Line):
    def inputs(self, part):
        time.sleep(0.01)
        return super().inputs(part)

config = configuration(Path("run"), steps=100_000, save_every=100_000)
config = replace(config, run=replace(config.run, workers=2, validate_every=100_000, sheet_every=100_000))
Path("done.json").write_text(json.dumps({{"step": loop.run(Slow(config), config).step}}))
"""
