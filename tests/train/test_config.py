"""Configurations: what is unknown, missing or of another type is refused by name."""

from pathlib import Path

import pytest

from sfumato.errors import ConfigError
from sfumato.train.config import read_config

MINIMAL = '[run]\noutput = "out"\nsteps = 5\nbatch = 2\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, MINIMAL))
    assert (config.run.steps, config.data.source, config.optimizer.clip) == (5, "world", 1.0)


def test_overrides_take_toml_values_and_plain_words(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    config = read_config(path, ["run.steps=9", "data.source=pictures", "data.counts=[0.5, 0.5]", "optimizer.rate=1"])
    assert (config.run.steps, config.data.source) == (9, "pictures")
    assert (config.data.counts, config.optimizer.rate) == ((0.5, 0.5), 1.0)


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        (MINIMAL + "stepz = 1\n", [], "unknown key 'stepz'; did you mean 'steps'"),
        (MINIMAL + "[rum]\n", [], "unknown key 'rum'; did you mean 'run'"),
        ('[run]\noutput = "o"\nsteps = 1\n', [], "missing batch"),
        (MINIMAL.replace("5", '"5"'), [], "steps must be int, found '5'"),
        (MINIMAL.replace("5", "true"), [], "steps must be int, found True"),
        (MINIMAL + "[optimizer]\nbetas = [0.9]\n", [], "betas must be"),
        (MINIMAL, ["steps=1"], "--set takes section.key=value"),
        (MINIMAL, ["run.steps"], "--set takes section.key=value"),
        ("run = 3\n", [], "must be a section"),
        ("not toml", [], "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(written(tmp_path, text), overrides)
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no training configuration .*absent\.toml"):
        read_config(tmp_path / "absent.toml")


def test_lengths_and_places_are_not_part_of_what_a_run_is(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    same = read_config(path, ["run.steps=9", "run.output=elsewhere", "run.save_every=1"])
    assert read_config(path).fingerprint() == same.fingerprint()
    assert read_config(path).fingerprint() != read_config(path, ["run.batch=3"]).fingerprint()
