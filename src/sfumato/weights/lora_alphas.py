"""The alpha of each layer in a LoRA file: a tensor of its own, or what peft's configurations say beside the tensors."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import ModelFileError
from sfumato.weights.files import TensorFile, read_json
from sfumato.weights.lora_names import TEXT, TEXT_2, UNET

METADATA = "lora_adapter_metadata"  # diffusers' metadata key for peft's configuration of each network
CONFIG = "adapter_config.json"  # peft's own, beside adapter_model.safetensors
PLAIN_PATTERN = re.compile(r"[\w.]+")
PATTERN = re.compile(r"(?:[\w.^$|\\()-]|\[[\w-]+\]|[.\w\]][*+])+")  # without repeated groups, which can take forever
REPEATS = 2  # in one pattern


def read_alpha(path: Path, name: str, tensors: TensorFile) -> float:
    """Read one number. Raises ModelFileError if it is several, or not finite."""
    info = tensors.infos[name]
    if math.prod(info.shape) != 1:
        raise ModelFileError(f"{path}: {name!r} has the shape {list(info.shape)}; an alpha is one number.")
    value = float(tensors[name].double().item())
    if not math.isfinite(value):
        raise ModelFileError(f"{path}: {name!r} is {value}; an alpha is a finite number. Get the file again.")
    return value


@dataclass(frozen=True)
class Alphas:
    """What peft's configurations say, by network; "" is for any. A layer that they do not speak of has alpha = rank."""

    configs: Mapping[str, Mapping[str, Any]]
    where: str

    def of(self, network: str, layer: str, rank: int) -> float:
        """Return the alpha of a layer, as if the scale were alpha / rank. Raises ModelFileError if it is no number."""
        config = self.configs.get(network, self.configs.get("", {}))
        alpha = self._stated(config, "alpha_pattern", layer)
        if alpha is None:
            alpha = config.get("lora_alpha", config.get("alpha", rank))
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise ModelFileError(f"{self.where}: the alpha of {layer} is {alpha!r:.60}; it should be a number.")
        return alpha * math.sqrt(rank) if config.get("use_rslora") else float(alpha)

    def rank(self, network: str, layer: str) -> int:
        """Return the rank that is stated for a layer, 0 if none is. Raises ModelFileError if it is no number."""
        config = self.configs.get(network, self.configs.get("", {}))
        rank = self._stated(config, "rank_pattern", layer)
        rank = config.get("r", 0) if rank is None else rank
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
            raise ModelFileError(f"{self.where}: the rank of {layer} is {rank!r:.60}; it should be a number.")
        return rank

    def options(self, network: str, layer: str) -> dict[str, Any]:
        """Return what else decides what an adapter of a layer does."""
        config = self.configs.get(network, self.configs.get("", {}))
        told = {name: config[name] for name in ("use_cayley_neumann", "num_cayley_neumann_terms") if name in config}
        if not isinstance(told.get("num_cayley_neumann_terms", 5), int):
            raise ModelFileError(f"{self.where}: num_cayley_neumann_terms should be a whole number.")
        listed = config.get("feedforward_modules") or ()
        patterns = [listed] if isinstance(listed, str) else listed
        if not isinstance(patterns, list | tuple) or not all(isinstance(each, str) for each in patterns):
            raise ModelFileError(f"{self.where}: feedforward_modules should be a list of names.")
        told["feedforward"] = any(self._fits(pattern, layer) for pattern in patterns)
        return told

    def _stated(self, config: Mapping[str, Any], name: str, layer: str) -> Any:
        """Return what one of the patterns says of a layer."""
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict):
            raise ModelFileError(f"{self.where}: {name} should be an object of numbers.")
        return next((value for pattern, value in patterns.items() if self._fits(pattern, layer)), None)

    def _fits(self, pattern: str, layer: str) -> bool:
        """Say whether one of peft's patterns, a regular expression for the end of a path, fits."""
        if len(pattern) > 200 or not PATTERN.fullmatch(pattern) or len(re.findall(r"[*+]", pattern)) > REPEATS:
            raise ModelFileError(f"{self.where}: the pattern {pattern[:80]!r} is too intricate to be tried.")
        if PLAIN_PATTERN.fullmatch(pattern):
            return f".{layer}".endswith(f".{pattern.removeprefix('.')}")
        try:
            return re.match(rf"(.*\.)?({pattern})$", layer) is not None
        except re.error as error:
            raise ModelFileError(f"{self.where}: the pattern {pattern[:80]!r} cannot be read: {error}") from error


def stated_alphas(path: Path, tensors: TensorFile, *, pure: bool) -> Alphas:
    """Return what is said about alphas beside the tensors: in the metadata, or in peft's file beside a `pure` adapter.

    Raises ModelFileError where that is missing or cannot be read, or asks for what is not supported.
    """
    if METADATA in tensors.metadata:
        where = f"{path}, {METADATA}"
        try:
            stated = json.loads(tensors.metadata[METADATA])
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{where}: not valid JSON: {str(error)[:200]}") from error
        if not isinstance(stated, dict):
            raise ModelFileError(f"{where}: should hold a JSON object.")
        configs: dict[str, dict[str, Any]] = {}
        for name, value in stated.items():
            network, _, option = name.partition(".")
            if network in (UNET, TEXT, TEXT_2):
                configs.setdefault(network, {})[option] = value
            else:
                configs.setdefault("", {})[name] = value
    elif pure:
        beside = path.parent / CONFIG
        if not beside.is_file():
            raise ModelFileError(
                f"{path}: an adapter of peft's, without {CONFIG} beside it; it has the alphas: add it."
            )
        where, configs = str(beside), {"": read_json(beside)}
    else:
        return Alphas({}, str(path))
    for config in configs.values():
        for option in ("fan_in_fan_out", "lora_bias", "coft"):
            if config.get(option):
                raise ModelFileError(f"{where}: {option} is {config[option]!r}, which is not supported.")
    return Alphas(configs, where)
