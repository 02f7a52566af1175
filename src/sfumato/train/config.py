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
    """How long, how large, and where. Steps are optimizer steps; a step sees `batch` samples in all processes together.

    Every random number is drawn for a microbatch of the step: the result is the same, but for the order of sums,
    however many processes and passes the microbatches are divided among.
    """

    output: str
    seed: int = 0
    steps: int
    batch: int
    microbatch: int = 0  # samples whose random numbers are drawn together; 0 = the whole batch
    accumulate: int = 1  # passes through the networks that each process divides its share of a step into
    precision: str = "float32"  # or "bf16", "fp16": autocast, weights and optimizer stay float32
    device: str = "auto"
    recompute: bool = (
        False  # a UNet's activations in the backward pass instead of keeping them: less memory, a third slower
    )
    compile: bool = False  # networks by torch.compile: minutes before the first step, then faster ones
    workers: int = -1  # processes that make inputs ahead; -1 = none beside a CPU that trains, else all cores but one
    shard: bool = False  # weights, gradients and optimizer divided among the processes (FSDP2)
    ema: float = 0.999  # per step, with warm-up (1 + n) / (10 + n)
    log_every: int = 20
    validate_every: int = 500
    save_every: int = 500
    sheet_every: int = 1000
    keep: int = 2
    tensorboard: bool = False  # the figures of log.jsonl as TensorBoard's events too, under `output`/events

    @property
    def microbatches(self) -> int:
        """How many microbatches a step has. Raises ConfigError where they do not divide the batch."""
        size = self.microbatch or self.batch
        if self.batch < 1 or size < 1 or self.batch % size:
            raise ConfigError(f"run.microbatch must divide run.batch, {self.batch}; found {self.microbatch}.")
        return self.batch // size


SCHEDULES = ("cosine", "linear", "constant", "inverse_root")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, and its rate as a function of the samples seen: a linear rise over `warmup`, then `schedule`.

    cosine and linear fall to `final` times the rate at the run's last sample; inverse_root falls with the root of
    the samples after `warmup` (Karras et al. 2024, equation 67, without its reference batch).
    """

    kind: str = "adamw"  # or "adamw8bit": moments in 8 bits, by bitsandbytes on CUDA
    rate: float = 1e-4
    rates: dict[str, float] = field(default_factory=dict)  # of single networks, such as text_encoder, if another
    schedule: str = "cosine"
    warmup: int = 3200  # samples
    final: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The drawn world when `source` is "world", else a path: a folder, a dataset configuration, shards or tables."""

    source: str = "world"
    size: int = 128  # side of the squares that are seen; with buckets, the root of their largest area
    buckets: bool = False  # pictures keep their shape, each in the size nearest to it; else squares from the middle
    pool: int = 0  # how many different samples there are; 0 = endless (world) or all (pictures)
    validation: int = 0  # samples that are kept out of training and that the validation loss is taken on
    keep: bool = field(default=False, repr=False)  # pictures stay in the device's memory, in 8 bits
    mirror: bool = False  # half of the pictures left to right; not where captions name sides
    counts: tuple[float, ...] = (1.0,)  # shares of scenes with 1, 2, ... things
    natural: float = field(default=0.0, repr=False)  # share of the drawn world's captions that are as people write
    seed: int = 1
    caption_column: str = field(default="text", repr=False)  # where a source has columns or fields
    image_column: str = field(default="", repr=False)  # "" = file_name in metadata, the only one of pictures in a table
    unreadable: float = field(default=0.05, repr=False)  # share of pictures that may be unreadable, and is left out
    caption: str = field(default="", repr=False)  # of every picture that has none of its own


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a run depends on. `network` and `loss` are read by the recipe of the thing trained."""

    run: RunConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    network: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)  # weights that the run builds on, by name
    lora: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, Any] = field(default_factory=dict)  # with lora and unet: pictures of the class
    imagined: dict[str, Any] = field(default_factory=dict)  # with unet: pairs that the drawn world never shows
    inversion: dict[str, Any] = field(default_factory=dict)
    inpainting: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """What may not change when a run is resumed, as JSON: all but lengths, places, division and reporting."""
        free = {"output", "steps", "device", "accumulate", "recompute", "compile", "workers", "shard"}
        free |= {"keep", "tensorboard", "log_every", "validate_every", "save_every", "sheet_every"}
        value = dataclasses.asdict(self)
        value["run"] = {key: item for key, item in value["run"].items() if key not in free}
        for key in ("caption", "buckets", "keep", "natural"):  # as it was before there were such keys
            if not value["data"][key]:
                del value["data"][key]
        if not self.optimizer.rates:
            del value["optimizer"]["rates"]
        for section in ("lora", "prior", "inversion", "inpainting"):  # those that a recipe has only if it is asked
            if not value[section]:
                del value[section]
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


def choice(key: str, value: str, options: Sequence[str]) -> str:
    """The value, if it is one of the options. Raises ConfigError naming the key, the value and the options."""
    if value not in options:
        raise ConfigError(f"{key} is one of {', '.join(options)}; found {value!r}.")
    return value


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
