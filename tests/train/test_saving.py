"""A checkpoint is whole or not there, whenever the process that writes it is killed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sfumato.errors import CheckpointError
from sfumato.train import checkpoint
from sfumato.train.adamw8bit import SIGNED, UNSIGNED, AdamW8bit, quantise, restore
from sfumato.train.checkpoint import Progress, State
from sfumato.train.config import OptimizerConfig
from sfumato.train.ema import Average
from sfumato.train.optimizer import make_optimizer

SAVING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_saving import made
from sfumato.train import checkpoint
from sfumato.train.checkpoint import Progress
state = made(value=2.0)
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
checkpoint.save(Path(sys.argv[1]), Progress(2, 20, 2.0), state, keep=1)
"""
CALLS = "openat,write,pwrite64,fsync,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,ftruncate,mmap,close"


def made(value: float, kind: str = "adamw") -> State:
    """The state of a small run whose every number is `value`."""
    network = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    networks: dict[str, nn.Module] = {"line": network}
    optimizer = make_optimizer(OptimizerConfig(kind=kind), networks)
    state = State(networks, Average(networks, 0.9), optimizer, "{}")
    state.make_moments()
    return state


def value_of(folder: Path) -> float:
    """What the newest checkpoint holds: one number throughout. `latest` names one that is there."""
    state = made(value=-1.0)
    checkpoint.restore(checkpoint.checkpoints(folder)[-1], state)
    network = state.networks["line"]
    [value] = {float(x) for p in network.parameters() for x in p.detach().flatten()}
    assert (folder / (folder / "latest").read_text().strip() / "state.json").is_file()
    return value


def test_the_newest_is_named_and_the_older_removed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, Progress(step), made(value=float(step)), keep=2)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    assert (tmp_path / "latest").read_text() == "step-00000003\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000002", "step-00000003"]


def test_what_was_not_written_as_it_should_be_is_noticed_before_the_older_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, Progress(1), made(value=1.0), keep=1)
    saved = checkpoint.save_file
    monkeypatch.setattr(
        checkpoint, "save_file", lambda tensors, path: saved({k: v * 0 for k, v in tensors.items()}, path)
    )
    with pytest.raises(CheckpointError, match="does not hold what was written"):
        checkpoint.save(tmp_path, Progress(2), made(value=2.0), keep=1)
    assert (tmp_path / "step-00000001" / "state.json").is_file()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, Progress(1), made(value=1.0), keep=1)
    other = State({"curve": nn.Linear(3, 2)}, Average({}, 0.9), torch.optim.AdamW([nn.Parameter(torch.ones(1))]), "{}")
    with pytest.raises(CheckpointError, match="tensors differ"):
        checkpoint.restore(path, other)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which kills at a given system call, is not here")
def test_killed_at_each_system_call_of_a_save_the_old_or_the_new_stands(tmp_path: Path) -> None:
    script = tmp_path / "saving.py"
    script.write_text(SAVING.format(tests=str(Path(__file__).parent)))
    before = tmp_path / "before"
    checkpoint.save(before, Progress(1), made(value=1.0), keep=1)
    calls = traced(script, shutil.copytree(before, tmp_path / "whole"))
    assert len(calls) > 20
    assert value_of(tmp_path / "whole") == 2.0
    found = []
    for number, (name, nth) in enumerate(calls):
        folder = shutil.copytree(before, tmp_path / f"killed-{number}")
        traced(script, folder, inject=f"{name}:signal=KILL:when={nth}")
        found.append(value_of(folder))
        # and the next save clears up what was left
        checkpoint.save(folder, Progress(3), made(value=3.0), keep=1)
        assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000003"]
        shutil.rmtree(folder)
    assert set(found) == {1.0, 2.0}


def traced(script: Path, folder: Path, inject: str = "") -> list[tuple[str, int]]:
    """The system calls of a save that touch its folder: name, and the how many-th of that name. Killed at `inject`.

    strace joins when everything is imported and only the save is left.
    """
    log = folder.parent / "strace.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        command = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={CALLS}", "-p", str(process.pid)]
        with subprocess.Popen(
            [*command, *(["-e", f"inject={inject}"] if inject else [])], stderr=subprocess.PIPE, text=True
        ) as tracer:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            try:
                process.stdin.write("\n")
                process.stdin.close()
            except BrokenPipeError:  # killed at once
                pass
            process.wait()
    calls = [line.split("(")[0].split()[-1] for line in log.read_text().splitlines()]
    lines = zip(calls, log.read_text().splitlines(), strict=True)
    return [(name, calls[: at + 1].count(name)) for at, (name, line) in enumerate(lines) if str(folder) in line]


@pytest.mark.parametrize(("table", "signed"), [(SIGNED, True), (UNSIGNED, False)])
def test_the_8_bit_code_has_256_values_and_keeps_numbers_to_a_few_percent(table: torch.Tensor, signed: bool) -> None:
    assert len(table) == len(set(table.tolist())) == 256
    assert float(table.max()) == 1.0
    assert (float(table.min()) < -0.9) == signed
    values = torch.logspace(-2, 0, 999) * (torch.tensor([1.0, -1.0, 1.0]).repeat(333) if signed else 1)
    codes, scale = quantise(values, table)
    kept = restore(codes, scale, table, values.shape)
    assert float(((kept - values) / values).abs().max()) < 0.1


def test_adamw_in_8_bits_follows_adamw() -> None:
    torch.manual_seed(0)
    goal = torch.randn(128, 64)
    ends = []
    for make in (torch.optim.AdamW, AdamW8bit):
        parameter = nn.Parameter(torch.zeros(128, 64))
        optimizer = make([parameter], lr=0.02)
        for _ in range(200):
            ((parameter - goal) ** 2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(parameter.detach())
    assert float((ends[0] - goal).abs().mean()) < 0.1
    assert float((ends[1] - ends[0]).abs().mean()) < 0.02
    state = optimizer.state[parameter]
    assert state["exp_avg"].dtype is torch.uint8
    assert sum(tensor.nbytes for tensor in state.values()) < 2.1 * parameter.numel()


def test_small_tensors_keep_exact_moments_in_8_bit_adamw() -> None:
    ends = []
    for make in (torch.optim.AdamW, AdamW8bit):
        parameter = nn.Parameter(torch.ones(5))
        optimizer = make([parameter], lr=0.01, weight_decay=0.1)
        for step in range(10):
            (parameter * (step + 1)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(parameter.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-7)


def test_8_bit_moments_are_saved_and_restored(tmp_path: Path) -> None:
    network = nn.Linear(128, 64)
    networks: dict[str, nn.Module] = {"line": network}
    optimizer = make_optimizer(OptimizerConfig(kind="adamw8bit"), networks)
    network(torch.ones(1, 128)).sum().backward()
    optimizer.step()
    state = State(networks, Average(networks, 0.9), optimizer, "{}")
    path = checkpoint.save(tmp_path, Progress(1), state, keep=1)
    again = nn.Linear(128, 64)
    other = make_optimizer(OptimizerConfig(kind="adamw8bit"), {"line": again})
    restored = State({"line": again}, Average({"line": again}, 0.9), other, "{}")
    checkpoint.restore(path, restored)
    assert all(torch.equal(value, restored.tensors()[name]) for name, value in state.tensors().items())
