"""Training a LoRA: small adapters beside a model's frozen UNet and, on request, its text encoders."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sfumato.errors import ConfigError, OutputError
from sfumato.model import Model
from sfumato.nn.lora import ATTENTION, CONVOLUTIONS, TEXT, TRANSFORMERS, Adapter, Adapters, Target, create
from sfumato.text.encode import TextStack
from sfumato.train.config import TrainConfig, build, choice
from sfumato.train.denoising import Denoising
from sfumato.train.foundation import Foundation, whole_model
from sfumato.weights.lora import locate_lora, networks_of, read_for
from sfumato.weights.lora_names import UNET, Dialect
from sfumato.weights.lora_save import WRITTEN, save_lora

UNET_SETS = {"attention": ATTENTION, "transformers": TRANSFORMERS, "convolutions": CONVOLUTIONS}
TEXT_SETS = {"attention": "*.self_attn.*", "perceptrons": "*.mlp.*", "all": TEXT}
PRECISIONS = {"float32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FILE_NAMES = {"kohya": "lora.safetensors"}  # the others have the name that diffusers looks for in a folder
FILE_NAME = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which layers get adapters of which size, and how they are written.

    `unet` and `text` list names of sets (`UNET_SETS`, `TEXT_SETS`), patterns of paths ("*.attn2.to_[kv]"), or tables
    with a `pattern` of either kind and a `rank` and `alpha` of their own; the first that fits a layer decides. `alpha`
    0 is the rank, a scale of 1. `precision` is that of the file: float32, fp16 or bf16.
    """

    rank: int = 16
    alpha: float = 0.0
    unet: tuple[str | dict[str, Any], ...] = ("attention",)
    text: tuple[str | dict[str, Any], ...] = ()
    dialect: str = "kohya"
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """An entry of `lora.unet` or `lora.text` with its own size; 0 is that of [lora]."""

    pattern: str
    rank: int = 0
    alpha: float = 0.0


class LoraTask(Denoising):
    """The recipe. `start.model` names the model, `start.lora`, if given, a LoRA that is trained further."""

    def __init__(self, config: TrainConfig) -> None:
        self.settings = read_settings(config)
        self.adapters: dict[str, Adapters] = {}
        super().__init__(config)
        networks = networks_of(self.model)
        for name, adapters in self.adapters.items():
            adapters.attach(networks[name])

    def prepared(self, base: Foundation) -> Foundation:
        self.model = whole_model(base)
        for network in networks_of(self.model).values():
            network.requires_grad_(False)
        self.adapters = self._continued() if "lora" in self.config.start else self._created()
        return base

    def _created(self) -> dict[str, Adapters]:
        found = {}
        unused = unused_layers(self.model)
        for number, (name, network) in enumerate(networks_of(self.model).items()):
            targets = targets_of(self.settings, name)
            if targets:
                made = create(network, targets, seed=self.config.run.seed + number)
                kept = {path: each for path, each in made.items() if not path.startswith(unused.get(name, ()))}
                found[name] = Adapters(kept)
        return found

    def _continued(self) -> dict[str, Adapters]:
        found = {}
        unused = unused_layers(self.model)
        for name, changes in read_for(self.model, locate_lora(str(self.config.start["lora"]))).items():
            read = changes.low_rank()
            found[name] = read.float().to(self.device).requires_grad_(True)
            for path, adapter in found[name].items():
                if path.startswith(unused.get(name, ())):
                    adapter.requires_grad_(False)
        return found

    @property
    def networks(self) -> dict[str, nn.Module]:
        return dict(self.adapters)

    @property
    def text_is_trained(self) -> bool:
        return any(name != UNET for name in self.adapters)

    def export(self, folder: Path) -> None:
        """Writes one file in `lora.dialect`, and reads it again as every program here does."""
        dialect: Dialect = next(each for each in WRITTEN if each == self.settings.dialect)
        path = folder / FILE_NAMES.get(dialect, FILE_NAME)
        dtype = PRECISIONS[self.settings.precision]
        metadata = metadata_of(self.config, self.model)
        save_lora(path, self.adapters, dialect=dialect, metadata=metadata, dtype=dtype, overwrite=True)
        read = {name: changes.low_rank() for name, changes in read_for(self.model, path).items()}
        check_written(path, self.adapters, read, dtype)


def read_settings(config: TrainConfig) -> LoraConfig:
    """The section [lora]. Raises ConfigError for what cannot be, before any work."""
    settings = build(LoraConfig, config.lora, "lora")
    if "model" not in config.start:
        raise ConfigError('start.model must name the model that the LoRA is for: a path, a name, or "embedded".')
    sizes = sorted(config.lora.keys() & {"rank", "alpha", "unet", "text"})
    if "lora" in config.start and sizes:
        raise ConfigError(f"start.lora has its own layers, ranks and alphas; leave lora.{sizes[0]} out.")
    choice("lora.dialect", settings.dialect, WRITTEN)
    choice("lora.precision", settings.precision, tuple(PRECISIONS))
    if not settings.unet and not settings.text:
        raise ConfigError("lora.unet and lora.text are both empty; name layers of at least one.")
    if config.run.shard:
        raise ConfigError("run.shard divides large networks; adapters are small: leave it out.")
    for name in ("unet", "text_encoder"):
        targets_of(settings, name)
    return settings


def targets_of(settings: LoraConfig, network: str) -> list[Target]:
    """The targets in a network of the model, none where it has none. Raises ConfigError naming a wrong entry."""
    key, entries, sets = ("unet", settings.unet, UNET_SETS) if network == UNET else ("text", settings.text, TEXT_SETS)
    return [_target(settings, f"lora.{key}", entry, sets) for entry in entries]


def _target(settings: LoraConfig, key: str, entry: str | dict[str, Any], sets: Mapping[str, str]) -> Target:
    entry = {"pattern": entry} if isinstance(entry, str) else entry
    asked = build(TargetConfig, entry, key)
    rank = asked.rank or settings.rank
    alpha = asked.alpha or (rank if "rank" in entry else settings.alpha or rank)
    if rank < 1 or alpha <= 0:
        raise ConfigError(f"{key}: {asked.pattern!r} has rank {rank} and alpha {alpha:g}; both are above 0.")
    if asked.pattern not in sets and not any(letter in asked.pattern for letter in "*?.["):
        raise ConfigError(
            f"{key} is of {', '.join(sets)}, or patterns of layers' paths such as '*.to_q'; found {asked.pattern!r}."
        )
    return Target(sets.get(asked.pattern, asked.pattern), rank, float(alpha))


def unused_layers(model: Model) -> dict[str, tuple[str, ...]]:
    """The beginnings of paths, by network, of layers that nothing reads: the last of an encoder whose states are taken
    before them, unless the pooled vector of it is read too.
    """
    text: TextStack = model.text
    names = [name for name in networks_of(model) if name != UNET]
    unused = {}
    for place, (name, encoder) in enumerate(zip(names, text.encoders, strict=True)):
        pooled = text.rules.pooled and place == len(names) - 1
        count = encoder.config.num_hidden_layers
        left = () if pooled else range(count - text.rules.skip, count)
        unused[name] = tuple(f"text_model.encoder.layers.{layer}." for layer in left)
    return unused


def check_written(
    path: Path, written: Mapping[str, Adapters], read: Mapping[str, Adapters], dtype: torch.dtype
) -> None:
    """Raises OutputError unless what was read from a file is what was written to it."""

    def same(one: Adapter, other: Adapter) -> bool:
        pairs: Sequence[tuple[torch.Tensor, torch.Tensor]] = ((one.down, other.down), (one.up, other.up))
        return one.alpha == other.alpha and all(torch.equal(a.detach().cpu().to(dtype), b) for a, b in pairs)

    for network, adapters in written.items():
        found = read.get(network, Adapters({}))
        if set(found.paths) != set(adapters.paths) or not all(same(each, found[at]) for at, each in adapters.items()):
            raise OutputError(f"{path} does not hold what was written of {network}; is the disk failing?")


def metadata_of(config: TrainConfig, model: Model) -> dict[str, str]:
    """What a LoRA's file says of its making: kohya's keys where there are some, and ours; no paths."""
    run, data, optimizer = config.run, config.data, config.optimizer
    hashes = model.hashes
    stated = dataclasses.asdict(config)
    settings = {name: stated[name] for name in ("optimizer", "loss", "lora")}
    settings["run"] = {name: stated["run"][name] for name in ("seed", "steps", "batch", "precision", "ema")}
    settings["data"] = {name: stated["data"][name] for name in ("size", "mirror", "caption")}
    settings["prior"] = {name: value for name, value in config.prior.items() if name != "source"}
    whole = {"ss_new_sd_model_hash": hashes["checkpoint"]} if "checkpoint" in hashes else {}
    return {
        "ss_resolution": f"({data.size}, {data.size})",
        "ss_seed": str(run.seed),
        "ss_max_train_steps": str(run.steps),
        "ss_total_batch_size": str(run.batch),
        "ss_learning_rate": str(optimizer.rate),
        "ss_mixed_precision": {"float32": "no"}.get(run.precision, run.precision),
        "ss_sd_model_name": Path(model.name).name,
        **whole,
        "sfumato_base": json.dumps({"family": model.family.name, "hashes": hashes}, sort_keys=True),
        "sfumato_settings": json.dumps(settings, sort_keys=True),
    }
