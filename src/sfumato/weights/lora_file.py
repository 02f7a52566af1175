"""A LoRA file, in any dialect: opened and understood, then read into adapters. Never half of it without a word."""

import re
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from sfumato.errors import ModelFileError, WeightsError
from sfumato.nn.lora import Adapter, Adapters, adaptable
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta, shapes_of
from sfumato.weights.component_files import SUFFIXES, weight_files
from sfumato.weights.families import FAMILIES, blueprint
from sfumato.weights.files import TensorFile, check_finite, open_file
from sfumato.weights.lora_alphas import read_alpha, stated_alphas
from sfumato.weights.lora_family import Widths, lora_family
from sfumato.weights.lora_names import PURE, TEXT, TEXT_2, UNET, WIDE_TOWER, Dialect, Key, ldm_paths, parse
from sfumato.weights.recognise import recognise

# In a folder: diffusers' name, and peft's; as pickles too.
FILES = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
)
FLOATS = ("F16", "BF16", "F32", "F64")
# What makes an adapter more than up @ down, by parts of its tensors' names.
OTHER_KINDS = (
    (re.compile(r"dora_scale|lora_magnitude_vector"), "a DoRA"),
    (re.compile(r"\.lora_mid\."), "a LoCon with a Tucker decomposition"),
    (re.compile(r"\.hada_(w|t)\d"), "a LoHa"),
    (re.compile(r"\.lokr_(w|t)\d"), "a LoKr"),
    (re.compile(r"\.oft_(blocks|diag|R)"), "an OFT"),
    (re.compile(r"\.lora_B(\.\w+)?\.bias$|lora.*\.diff(_b)?$"), "a LoRA with biases or whole weights"),
)


@dataclass(frozen=True)
class Entry:
    """One layer's adapter in a file: the names of its two tensors, and its alpha."""

    down: str
    up: str
    alpha: float


@dataclass(frozen=True)
class OpenedLora:
    """A LoRA file that was understood and not yet read: network -> path of a layer -> its adapter.

    `unmatched`: names of tensors that are no layer's of any network.
    """

    path: Path
    dialect: Dialect
    tensors: TensorFile
    entries: Mapping[str, Mapping[str, Entry]]
    unmatched: tuple[str, ...]

    @property
    def widths(self) -> Widths:
        """How many features go into each layer's adapter."""
        infos = self.tensors.infos
        return {n: {path: infos[e.down].shape[1] for path, e in layers.items()} for n, layers in self.entries.items()}

    @property
    def family(self) -> tuple[str | None, str]:
        """The family that it looks made for, None if it is none of ours, and what shows it."""
        return lora_family(self.widths, self.tensors.metadata)

    def read(self, network: str, only: Container[str] | None = None) -> Adapters:
        """Read the adapters of one network, as the file has them; `only`: the paths to read, by default all.

        Raises ModelFileError for numbers that are not finite.
        """
        entries = self.entries.get(network, {}).items()
        return Adapters({path: self._adapter(entry) for path, entry in entries if only is None or path in only})

    def _adapter(self, entry: Entry) -> Adapter:
        down, up = self.tensors[entry.down], self.tensors[entry.up]
        for name, tensor in ((entry.down, down), (entry.up, up)):
            check_finite(name, tensor, self.path)
        return Adapter(down, up, entry.alpha)


def open_lora(path: Path, unet: UNet | None = None) -> OpenedLora:
    """Open a LoRA's file, or a folder with one, without reading its weights.

    `unet` is asked for its layers where the file has latent-diffusion's names, which say nothing without it; without
    one they are read as those of the published family that the file looks made for.
    Raises ModelFileError for a damaged file, WeightsError for one that holds something else or half of an adapter.
    """
    path = the_file(path)
    tensors = open_file(path)
    keys = {name: key for name in tensors if (key := parse(name)) is not None}
    refuse_other_kinds(path, tensors)
    if not any(key.role != "alpha" for key in keys.values()):
        looks = recognise(shapes_of(tensors))
        raise WeightsError(f"{path} is not a LoRA: it looks like {looks.what} ({looks.reason}). Name a LoRA's file.")
    dialect = Counter(key.dialect for key in keys.values() if key.role != "alpha").most_common(1)[0][0]
    roles, unmatched = by_layer(keys, tensors, unet)
    unmatched += [name for name in tensors if name not in keys]
    check_pairs(path, roles, tensors)
    alphas = stated_alphas(path, tensors, pure=any(name.startswith(PURE) for name in keys))
    entries: dict[str, dict[str, Entry]] = {}
    for (network, layer), names in roles.items():
        rank = tensors.infos[names["down"]].shape[0]
        told = read_alpha(path, names["alpha"], tensors) if "alpha" in names else alphas.of(network, layer, rank)
        entries.setdefault(network, {})[layer] = Entry(names["down"], names["up"], told)
    return OpenedLora(path, dialect, tensors, entries, tuple(sorted(unmatched)))


def the_file(path: Path) -> Path:
    """Return a LoRA's file: the path, or the one in a folder."""
    if not path.is_dir():
        return path
    known = lora_files(path)
    if len(known) != 1:
        there = ", ".join(each.name for each in known) or "no weight file"
        raise ModelFileError(f"{path}: a folder with {there}; name the LoRA's file.")
    return known[0]


def lora_files(folder: Path) -> list[Path]:
    """List the files of a folder that may be its LoRA: those of the known names, else all weights; pickles last."""
    known = [folder / name for name in FILES if (folder / name).is_file()]
    return [path for path in known if path.suffix == SUFFIXES[0]] or known or weight_files(folder)


def refuse_other_kinds(path: Path, tensors: TensorFile) -> None:
    """Raise WeightsError for adapters that are more than up @ down, which would act wrongly as less."""
    for pattern, what in OTHER_KINDS:
        found = [name for name in tensors if pattern.search(name)]
        if found:
            raise WeightsError(
                f"{path} is {what} (it has {len(found)} tensors such as {found[0][:120]!r}), which is not supported; "
                "supported are LoRAs of linear layers and convolutions."
            )


def by_layer(
    keys: Mapping[str, Key], tensors: TensorFile, unet: UNet | None
) -> tuple[dict[tuple[str, str], dict[str, str]], list[str]]:
    """Sort a file's names by network and layer: role -> name for each; and those that are no layer's."""
    ldm = ldm_layers(keys, tensors, unet) if any(key.ldm for key in keys.values()) else {}
    untold = [name for name, key in keys.items() if key.network == TEXT and not key.told]
    tower = TEXT_2 if any(WIDE_TOWER in tensors.infos[name].shape for name in untold) else TEXT
    roles: dict[tuple[str, str], dict[str, str]] = {}
    unmatched = []
    for name, key in keys.items():
        layer = ldm.get(key.path) if key.ldm else key.path
        network = key.network if key.told or key.network != TEXT else tower
        names = roles.setdefault((network, layer), {}) if layer is not None else {}
        if layer is None or key.role in names:
            unmatched.append(name)
        else:
            names[key.role] = name
    return roles, unmatched


def ldm_layers(keys: Mapping[str, Key], tensors: TensorFile, unet: UNet | None) -> dict[str, str]:
    """Return what latent-diffusion's names mean in this UNet; without one, in that of the family that it looks like."""
    if unet is None:
        downs = [(key.path, tensors.infos[name].shape) for name, key in keys.items() if key.role == "down"]
        widths = {path.replace("_to_", ".to_"): shape[1] for path, shape in downs if len(shape) > 1}
        family, _ = lora_family({UNET: widths}, tensors.metadata)
        if family is None:
            return {}
        config = blueprint(FAMILIES[family]).unet
        unet = on_meta(lambda: UNet(config))
    return ldm_paths(unet.config, adaptable(unet))


def check_pairs(path: Path, roles: Mapping[tuple[str, str], Mapping[str, str]], tensors: TensorFile) -> None:
    """Raise WeightsError unless every layer has a down and an up that go together."""
    halves = [next(iter(names.values())) for names in roles.values() if not {"down", "up"} <= set(names)]
    if halves:
        raise WeightsError(
            f"{path}: {len(halves)} of {len(roles)} adapters lack a half, first that of {halves[0]!r}; the file is "
            "damaged or was saved half: get it again."
        )
    wrong = []
    for names in roles.values():
        down, up = tensors.infos[names["down"]], tensors.infos[names["up"]]
        pair = len(down.shape) in (2, 4) and len(up.shape) in (2, 4) and 0 not in down.shape + up.shape
        if not pair or down.shape[0] != up.shape[1] or any(size != 1 for size in up.shape[2:]):
            wrong.append(f"{names['down']!r} {list(down.shape)} and {list(up.shape)}")
        elif down.dtype not in FLOATS or up.dtype not in FLOATS:
            wrong.append(f"{names['down']!r} of type {down.dtype} and {up.dtype}")
    if wrong:
        raise WeightsError(
            f"{path}: {len(wrong)} of {len(roles)} adapters are no pairs of down [r, in] and up [out, r] in floating "
            f"point, first {wrong[0]}; get the file again."
        )
