"""A training run as a value: read from TOML, changed by `--set key=value`, refused where a key is unknown."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from sfumato.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, how large, and where. Steps are optimizer steps; a step sees batch * accumulate samples."""

    output: str
    seed: int = 0
    steps: int
    batch: int
    accumulate: int = 1
    precision: str = "float32"  # or "bf16": autocast, weights and optimizer stay float32
    device: str = "auto"
    ema: float = 0.999  # per step, with warm-up (1 + n) / (10 + n)
    log_every: int = 20
    save_every: int = 500
    sheet_every: int = 1000
    keep: int = 2


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay to `final` times the rate; both counted in steps."""

    rate: float = 1e-4
    warmup: int = 100
    final: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The drawn world when `source` is "world", else a folder of pictures with captions."""

    source: str = "world"
    size: int = 128
    pool: int = 0  # how many different samples there are; 0 = endless (world) or all (folder)
    counts: tuple[float, ...] = (1.0,)  # shares of scenes with 1, 2, ... things
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a run depends on. `network` and `loss` are read by the recipe of the thing trained."""

    run: RunConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    network: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)  # weights that the run builds on, by name

    def fingerprint(self) -> str:
        """What may not change when a run is resumed, as JSON: all but lengths, places and reporting."""
        free = {"output", "steps", "device", "log_every", "save_every", "sheet_every", "keep"}
        value = dataclasses.asdict(self)
        value["run"] = {key: item for key, item in value["run"].items() if key not in free}
        return json.dumps(value, sort_keys=True)


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration in a TOML file, with `section.key=value` overrides (values in TOML's notation).

    Raises ConfigError naming the file, section and key.
    """
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"There is no training configuration {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        key, separator, text = override.partition("=")
        section, dot, name = key.strip().partition(".")
        if not separator or not dot:
            raise ConfigError(f"--set takes section.key=value, such as run.steps=1000; found {override!r}.")
        section_table = table.setdefault(section, {})
        if not isinstance(section_table, dict):
            raise ConfigError(f"--set {override!r}: {section!r} in {path} is not a section.")
        section_table[name] = _toml_value(text.strip())
    return build(TrainConfig, table, str(path))


def build(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A frozen configuration dataclass from a table; unknown, missing and mistyped keys are ConfigErrors."""
    types = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(fields)}."
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    missing = [
        name
        for name, f in fields.items()
        if name not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}.")
    return kind(**{key: _typed(types[key], value, f"{where}: {key}") for key, value in table.items()})


def _typed(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a section, found {value!r}.")
        return build(kind, value, where)
    origin = get_origin(kind)
    if origin is UnionType:
        return (
            value if any(isinstance(value, get_origin(k) or k) for k in get_args(kind)) else _refuse(kind, value, where)
        )
    if origin is tuple:
        items = get_args(kind)
        if not isinstance(value, list | tuple) or (Ellipsis not in items and len(items) != len(value)):
            return _refuse(kind, value, where)
        return tuple(_typed(items[0], item, where) for item in value)
    if origin is dict or kind is dict:
        return dict(value) if isinstance(value, Mapping) else _refuse(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        return _refuse(kind, value, where)
    return value


def _refuse(kind: Any, value: Any, where: str) -> Any:
    name = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{where} must be {name}, found {value!r}.")


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
