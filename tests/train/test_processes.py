"""A run divided among processes is the run of one process; it goes on in another division than it was begun in."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.train import checkpoint
from sfumato.train.checkpoint import State
from sfumato.train.config import TrainConfig, read_config
from sfumato.train.ema import Average
from sfumato.train.optimizer import make_optimizer
from sfumato.train.text import TextTask

CONFIG = """
[run]
output = "{output}"
seed = 3
steps = {steps}
batch = 8
microbatch = 2
save_every = 2
log_every = 1
device = "cpu"

[optimizer]
rate = 1e-3
warmup = 16

[data]
counts = [0.6, 0.4]
pool = 24

[network]
vocab_size = 600
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 77
projection_dim = 32
"""
ALONE = [sys.executable, "-m", "sfumato"]
LIMIT = 240  # seconds; each process imports PyTorch first


def torchrun(processes: int, *options: str) -> list[str]:
    return [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}", *options, "-m", "sfumato"]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def train(folder: Path, command: list[str], *settings: str, steps: int = 4) -> subprocess.CompletedProcess[str]:
    """One call of `sfumato train text`, to its end."""
    return subprocess.run(
        [*command, *arguments(folder, *settings, steps=steps)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment(),
    )


def arguments(folder: Path, *settings: str, steps: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    path = folder / "text.toml"
    path.write_text(CONFIG.format(output=folder / "run", steps=steps))
    return ["train", "text", str(path), "--resume", *(word for each in settings for word in ("--set", each))]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def weights(folder: Path, steps: int = 4) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint: weights, averages and moments."""
    config: TrainConfig = read_config(folder / "text.toml")
    task = TextTask(config)
    optimizer = make_optimizer(config.optimizer, task.networks)
    state = State(task.networks, Average(task.networks, config.run.ema), optimizer, config.fingerprint())
    newest = checkpoint.checkpoints(folder / "run")[-1]
    assert newest.name == (folder / "run" / "latest").read_text().strip()
    assert checkpoint.restore(newest, state).step == steps
    return {name: tensor.detach().clone() for name, tensor in state.tensors().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    """A key's bias moves no attention: its gradient is rounding alone, which AdamW blows up to a step of its own."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        if tolerance and "k_proj.bias" in name:
            continue
        torch.testing.assert_close(
            other[name], tensor, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("alone")
    done = train(folder, ALONE)
    assert done.returncode == 0, done.stderr
    return weights(folder)


def test_two_processes_train_what_one_trains(tmp_path: Path, alone: dict[str, Tensor]) -> None:
    done = train(tmp_path, torchrun(2))
    assert done.returncode == 0, done.stderr
    same(alone, weights(tmp_path), 1e-6)
    assert done.stdout.split() == [str(tmp_path / "run")]  # told once
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "export" / "text_encoder" / "config.json").is_file()


@pytest.mark.slow
def test_divided_weights_are_trained_saved_and_read_in_any_division(tmp_path: Path, alone: dict[str, Tensor]) -> None:
    done = train(tmp_path / "divided", torchrun(2), "run.shard=true")
    assert done.returncode == 0, done.stderr
    assert checkpoint.is_sharded(checkpoint.checkpoints(tmp_path / "divided" / "run")[-1])
    same(alone, weights(tmp_path / "divided"), 1e-6)
    there_and_back = tmp_path / "back"
    for command, settings, steps in (
        (torchrun(2), ("run.shard=true",), 1),
        (ALONE, (), 2),
        (torchrun(2), ("run.shard=true",), 3),
        (torchrun(2), (), 4),
    ):
        # The rate depends on the length of the run, which is the same in all: each is stopped early by its steps.
        done = train(there_and_back, command, *settings, "optimizer.schedule='constant'", steps=steps)
        assert done.returncode == 0, done.stderr
    constant = tmp_path / "constant"
    train(constant, ALONE, "optimizer.schedule='constant'")
    for folder in (there_and_back, constant):
        path = folder / "text.toml"
        path.write_text(path.read_text().replace("rate = 1e-3", "rate = 1e-3\nschedule = 'constant'"))
    same(weights(constant), weights(there_and_back), 1e-6)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_bytes_of_one_that_was_not(
    tmp_path: Path, alone: dict[str, Tensor]
) -> None:
    """-9 after 0.1, 0.2, ... seconds of training, each time resumed."""
    killed = 0
    for number in range(40):
        process = subprocess.Popen(
            [*ALONE, *arguments(tmp_path, steps=4)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        began = (tmp_path / "run" / "log.jsonl").exists()
        while process.poll() is None and not began:
            began = (tmp_path / "run").exists()
            time.sleep(0.01)
        time.sleep(0.05 * (number % 7))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait(LIMIT)
        if process.returncode == 0:
            break
    done = train(tmp_path, ALONE)
    assert done.returncode == 0, done.stderr
    assert killed
    same(alone, weights(tmp_path), 0.0)


OTHERWISE = """
import sys, time
from pathlib import Path
from sfumato.train import loop
from sfumato.train.config import read_config
from sfumato.train.text import TextTask

class Otherwise(TextTask):
    def loss(self, part, inputs):
        {first}
        return super().loss(part, inputs)

config = read_config(Path(sys.argv[1]))
loop.run(Otherwise(config), config, resume=True)
"""


def otherwise(folder: Path, first: str) -> Path:
    """A script that trains as `sfumato train text` does, and does something first in each pass."""
    script = folder / "otherwise.py"
    script.write_text(OTHERWISE.format(first=first))
    return script


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_within_a_minute(tmp_path: Path) -> None:
    arguments(tmp_path, steps=4)
    script = otherwise(tmp_path, "assert part.step == 0 or part.first == 0, 'out of luck'")
    began = time.monotonic()
    done = subprocess.run(
        [*TORCHRUN, "--standalone", "--nproc-per-node=2", str(script), str(tmp_path / "text.toml")],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment(),
    )
    assert done.returncode != 0
    assert "out of luck" in done.stderr
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_run_goes_on_within_a_minute_when_one_of_two_machines_is_lost(tmp_path: Path) -> None:
    """Two agents of one process each, as on two machines; the second and its process are killed."""
    arguments(tmp_path, steps=400)
    script = otherwise(tmp_path, "time.sleep(0.2)")
    log = tmp_path / "run" / "log.jsonl"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [*TORCHRUN, "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d"]
    command += [f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=lost", str(script), str(tmp_path / "text.toml")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    agents = []
    try:
        for _ in range(2):
            agents.append(subprocess.Popen(command, env=environment(), start_new_session=True, **quiet))
            time.sleep(1)
        until(lambda: log.exists() and len(log.read_text().splitlines()) >= 3)
        os.killpg(agents[1].pid, signal.SIGKILL)
        time.sleep(1)
        before = len(log.read_text().splitlines())
        assert until(lambda: len(log.read_text().splitlines()) > before + 3 or agents[0].poll() is not None) < 60
        assert agents[0].poll() is None  # it goes on alone
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()


def until(condition: Callable[[], bool]) -> float:
    """Waits for something to be so; how long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < LIMIT
        time.sleep(0.1)
    return time.monotonic() - began
