"""A run's figures, read by the programs that people look at them with."""

import json
from pathlib import Path

import pytest
import tiny_start as tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_tensorboard_reads_what_the_log_says(tmp_path: Path) -> None:
    pictures = tiny.plain_pictures(tmp_path / "pictures")
    given = {
        "start": {"model": str(tiny.start_model("sd1", tmp_path))},
        "data": {"source": str(pictures), "validation": 1},
        "lora": {"rank": 2},
        "run": {"steps": 2, "tensorboard": True, "validate_every": 2},
    }
    tiny.train("lora", tmp_path / "run", given)
    events = EventAccumulator(str(tmp_path / "run" / "events"))
    events.Reload()
    found = {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"loss", "mse_low", "rate", "validation_mse"} <= set(found)
    for name, values in found.items():
        logged = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in values] == [step for step, _ in logged]
        assert [value for _, value in values] == pytest.approx([value for _, value in logged], rel=1e-5)  # six digits
