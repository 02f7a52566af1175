"""A LoRA written as a file that other programs read, and one dialect turned into another."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sfumato.errors import ConfigError, OutputError, OutputFormatError, WeightsError
from sfumato.nn.lora import Adapters, adaptable
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta
from sfumato.weights.families import FAMILIES, blueprint
from sfumato.weights.lora_alphas import METADATA
from sfumato.weights.lora_family import lora_family
from sfumato.weights.lora_file import open_lora
from sfumato.weights.lora_names import TEXT_2, UNET, Dialect, dotted_name, kohya_name, ldm_paths
from sfumato.weights.writing import written_aside

WRITTEN: tuple[Dialect, ...] = ("kohya", "diffusers", "peft")
# kohya's ss_base_model_version: library/model_util.py, sdxl_model_util.py of sd-scripts
VERSIONS = {"sd15": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}


def save_lora(
    path: Path | str,
    networks: Mapping[str, Adapters],
    *,
    dialect: Dialect = "kohya",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Write adapters by network ("unet", "text_encoder", "text_encoder_2") as one .safetensors file; return its path.

    `metadata` goes along; what a dialect needs is added. `dtype`: the precision of the tensors, by default their own.
    In kohya's dialect a UNet of SDXL's widths has latent-diffusion's names, as kohya's own trainer writes them.
    Raises OutputError if the file exists (unless it may be overwritten) or cannot be written, a number is not finite
    in the precision, or there is nothing to write.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutputFormatError(f"{path}: a LoRA is written as .safetensors; name it so.")
    networks = {name: adapters for name, adapters in networks.items() if len(adapters)}
    if not networks or dialect not in WRITTEN:
        raise OutputError(f"{path}: nothing to write as {dialect!r}; a LoRA is written as {' or '.join(WRITTEN)}.")
    tensors = kohya_tensors(networks, dtype) if dialect == "kohya" else dotted_tensors(networks, dialect, dtype)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise OutputError(f"{path}: {name!r} is not finite in {tensor.dtype}; use bfloat16 or float32.")
    stated = {"format": "pt", **(metadata or {})}
    with written_aside(path, overwrite=overwrite) as aside:
        if dialect == "kohya":
            stated.update(kohya_metadata(networks, stated))
            stated.update(kohya_hashes(tensors, stated))
        else:
            stated[METADATA] = json.dumps(peft_configs(networks), sort_keys=True)
        aside.write_bytes(file_bytes(tensors, stated))
    return path


def convert_lora(
    source: Path,
    target: Path | str,
    dialect: Dialect,
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a LoRA file in another dialect: the same tensors and alphas, and its metadata.

    Raises WeightsError for a file with tensors that are no layer's, and what `open_lora` and `save_lora` raise.
    """
    opened = open_lora(source)
    if opened.unmatched:
        raise WeightsError(
            f"{opened.path}: {len(opened.unmatched)} of its tensors are no layer's of a model that sfumato knows, "
            f"first {opened.unmatched[0]!r}; it cannot be converted whole."
        )
    try:
        networks = {network: opened.read(network).low_rank() for network in opened.entries}
    except ConfigError as error:
        raise WeightsError(f"{opened.path} cannot be converted: {error}") from error
    kept = {k: v for k, v in opened.tensors.metadata.items() if k != METADATA and not k.startswith("sshs_")}
    return save_lora(target, networks, dialect=dialect, metadata=kept, dtype=dtype, overwrite=overwrite)


def kohya_tensors(networks: Mapping[str, Adapters], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors by kohya's names, each layer with its alpha."""
    family, _ = lora_family(widths_of(networks), {})
    towers = 2 if family == "sdxl" or TEXT_2 in networks else 1
    ldm = sdxl_names() if family == "sdxl" else {}
    tensors: dict[str, Tensor] = {}
    for network, adapters in networks.items():
        for layer, adapter in adapters.items():
            name = kohya_name(network, layer, towers=towers, ldm=ldm if network == UNET else {})
            down, up = stored(adapter.down, dtype), stored(adapter.up, dtype)
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            tensors[f"{name}.alpha"] = exact(adapter.alpha, down.dtype)
    return tensors


def sdxl_names() -> dict[str, str]:
    """Return latent-diffusion's names of the layers of SDXL's UNet, with underscores, by their paths."""
    config = blueprint(FAMILIES["sdxl"]).unet
    return {path: name for name, path in ldm_paths(config, adaptable(on_meta(lambda: UNet(config)))).items()}


def dotted_tensors(networks: Mapping[str, Adapters], dialect: Dialect, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors by the names that diffusers or peft give them."""
    tensors: dict[str, Tensor] = {}
    for network, adapters in networks.items():
        for layer, adapter in adapters.items():
            down, up = dotted_name(network, layer, dialect)
            tensors |= {down: stored(adapter.down, dtype), up: stored(adapter.up, dtype)}
    return tensors


def stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a tensor as it is written: in memory of its own, dense, in a precision."""
    return tensor.detach().to("cpu", dtype).contiguous()


def exact(value: float, dtype: torch.dtype) -> Tensor:
    """Return a number as a tensor of this type, or of the first wider one that has it exactly."""
    types = (dtype, torch.float32, torch.float64)
    return next(tensor for each in types if (tensor := torch.tensor(value, dtype=each)).item() == value)


def widths_of(networks: Mapping[str, Adapters]) -> dict[str, dict[str, int]]:
    """Return how many features go into each adapter."""
    return {name: {path: each.down.shape[1] for path, each in adapters.items()} for name, adapters in networks.items()}


def usual(networks: Mapping[str, Adapters]) -> tuple[int, float]:
    """Return the rank and the alpha that most layers have."""
    pairs = Counter((adapter.rank, adapter.alpha) for each in networks.values() for _, adapter in each.items())
    return pairs.most_common(1)[0][0]


def kohya_metadata(networks: Mapping[str, Adapters], given: Mapping[str, str]) -> dict[str, str]:
    """Return the least that programs expect of a LoRA of kohya's; what is given of it stays, ranks aside."""
    rank, alpha = usual(networks)
    family, _ = lora_family(widths_of(networks), {})
    convolutions = any("resnets" in path or "samplers" in path for each in networks.values() for path in each.paths)
    told = {
        "ss_v2": str(family == "sd2"),
        "ss_base_model_version": VERSIONS.get(family or "", "sfumato"),
        "ss_network_module": "networks.lora",
        "ss_network_args": json.dumps({"conv_dim": rank, "conv_alpha": alpha} if convolutions else {}),
    }
    return {
        **told,
        **{k: given[k] for k in told if k in given},
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
    }


def kohya_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes by which programs tell LoRAs apart, of a file with no other metadata than ss_...

    sd-scripts, library/train_util.py, precalculate_safetensors_hashes.
    """
    whole = file_bytes(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(whole[:8], "little")
    legacy = hashlib.sha256(whole[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    return {"sshs_model_hash": hashlib.sha256(whole[start:]).hexdigest(), "sshs_legacy_hash": legacy}


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file, always the same for the same content: the library shuffles the metadata."""
    whole = save(dict(tensors))
    start = 8 + int.from_bytes(whole[:8], "little")
    table = {"__metadata__": dict(sorted(metadata.items())), **json.loads(whole[8:start])}
    header = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # so that the tensors are aligned
    return len(header).to_bytes(8, "little") + header + whole[start:]


def peft_configs(networks: Mapping[str, Adapters]) -> dict[str, Any]:
    """Return peft's configuration of each network, its options behind the network's name, as diffusers reads them.

    A text encoder's layers are without `text_model.`, which some versions of transformers leave out: peft matches the
    ends of paths.
    """
    stated: dict[str, Any] = {}
    for network, adapters in networks.items():
        rank, alpha = usual({network: adapters})
        layers = [(path.removeprefix("text_model."), adapter) for path, adapter in adapters.items()]
        config = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": number(alpha),
            "rank_pattern": {path: each.rank for path, each in layers if each.rank != rank},
            "alpha_pattern": {path: number(each.alpha) for path, each in layers if each.alpha != alpha},
            "target_modules": sorted(path for path, _ in layers),
        }
        stated |= {f"{network}.{option}": value for option, value in config.items()}
    return stated


def number(value: float) -> int | float:
    """Return a whole number as one."""
    return int(value) if value.is_integer() else value
