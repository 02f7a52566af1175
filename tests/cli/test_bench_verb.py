"""bench as a process: this machine's speed beside its limit."""

import json
from pathlib import Path

import pytest
from cli_run import Run


def test_bench_tells_each_part_beside_the_limit(sfumato: Run, model: Path) -> None:
    done = sfumato("bench", "-m", model, "--repeats", 1, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    parts = {part["part"]: part for part in told["parts"]}
    assert list(parts) == ["text", "step", "decode"]
    assert (told["width"], told["precision"], told["limit"] > 0) == (64, "float32", True)
    seconds = parts["text"]["seconds"] + told["steps"] * parts["step"]["seconds"] + parts["decode"]["seconds"]
    assert told["picture"] == pytest.approx(seconds)
    lines = sfumato("bench", "-m", model, "--repeats", 1, "--size", "32x48").stdout.splitlines()
    assert "32x48" in lines[0]
    assert len(lines) == 6


def test_bench_refuses_sizes_that_are_none(sfumato: Run) -> None:
    assert sfumato("bench", "--size", "big").returncode == 2
    assert sfumato("bench", "--size", "1x99999").returncode == 2
