"""A LoRA file, in any dialect: opened and understood, then read into adapters. Never half of it without a word."""

import re
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from sfumato.errors import ModelFileError, WeightsError
from sfumato.nn.change import Change, changeable
from sfumato.nn.lora import Changes
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta, shapes_of
from sfumato.weights.component_files import SUFFIXES, weight_files
from sfumato.weights.families import FAMILIES, blueprint
from sfumato.weights.files import TensorFile, check_finite, open_file
from sfumato.weights.lora_alphas import Alphas, read_alpha, stated_alphas
from sfumato.weights.lora_family import Widths, lora_family
from sfumato.weights.lora_kinds import Entry, change_of, inputs_of, kind_of, rank_of
from sfumato.weights.lora_names import PURE, TEXT, TEXT_2, UNET, WIDE_TOWER, Dialect, Key, ldm_paths, parse
from sfumato.weights.recognise import FOREIGN_LORA, recognise

# In a folder: diffusers' name, and peft's; as pickles too.
FILES = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
)
FLOATS = ("F16", "BF16", "F32", "F64")
# What is not supported, by parts of its tensors' names.
OTHER_KINDS = (
    (re.compile(r"\.oft_r(\.|$)"), "an OFT of an older peft"),
    (re.compile(r"\.bm\.weight$"), "a GLoRA with a core"),
    (re.compile(r"\.lora_B(\.\w+)?\.bias$"), "a LoRA with biases"),
    (re.compile(r"\.lora_embedding_[AB]"), "a LoRA of an embedding"),
)
INWARD = ("down", "hada_w1_b", "b2")  # tensors whose second size is the layer's input
EXTREME = 1e6  # ours: an alpha beyond leaves nothing of a weight in float32


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
        found = {
            name: {p: inputs_of(each, infos) for p, each in layers.items()} for name, layers in self.entries.items()
        }
        return {name: {p: wide for p, wide in layers.items() if wide is not None} for name, layers in found.items()}

    @property
    def family(self) -> tuple[str | None, str]:
        """The family that it looks made for, None if it is none of ours, and what shows it."""
        return lora_family(self.widths, self.tensors.metadata)

    def read(self, network: str, only: Container[str] | None = None) -> Changes:
        """Read the adapters of one network, as the file has them; `only`: the paths to read, by default all.

        Raises ModelFileError for numbers that are not finite, WeightsError for tensors that do not go together.
        """
        entries = self.entries.get(network, {}).items()
        return Changes({path: self._change(entry) for path, entry in entries if only is None or path in only})

    def _change(self, entry: Entry) -> Change:
        tensors = {role: self.tensors[name] for role, name in entry.names.items()}
        for role, tensor in tensors.items():
            if tensor.is_floating_point():
                check_finite(entry.names[role], tensor, self.path)
        try:
            return change_of(entry, tensors)
        except ValueError as error:
            first = next(iter(entry.names.values()))
            raise WeightsError(f"{self.path}: the {entry.title} of {first!r}: {error}; get the file again.") from error


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
    looks = recognise(shapes_of(tensors))
    if looks.what == FOREIGN_LORA or not any(key.role != "alpha" for key in keys.values()):
        raise WeightsError(f"{path} is not a LoRA: it looks like {looks.what} ({looks.reason}). Name a LoRA's file.")
    dialect = Counter(key.dialect for key in keys.values() if key.role != "alpha").most_common(1)[0][0]
    roles, unmatched = by_layer(keys, tensors, unet)
    unmatched += [name for name in tensors if name not in keys]
    check_pairs(path, roles, tensors)
    alphas = stated_alphas(path, tensors, pure=any(name.startswith(PURE) for name in keys))
    entries: dict[str, dict[str, Entry]] = {}
    for (network, layer), names in roles.items():
        entry = entry_of(path, (network, layer), names, tensors, alphas)
        entries.setdefault(network, {})[layer] = entry
    return OpenedLora(path, dialect, tensors, entries, tuple(sorted(unmatched)))


def entry_of(
    path: Path, place: tuple[str, str], names: Mapping[str, str], tensors: TensorFile, alphas: Alphas
) -> Entry:
    """Return one layer's adapter. Raises ModelFileError for an alpha that cannot be."""
    kind = kind_of(frozenset(names))
    assert kind is not None
    shapes = {role: tensors.infos[name].shape for role, name in names.items()}
    rank = rank_of(kind, shapes)
    if kind == "lokr" and "alpha" not in names:
        rank = alphas.rank(*place) or rank
    alpha = 0.0
    if "alpha" in names:
        alpha = read_alpha(path, names["alpha"], tensors)
    elif rank:
        alpha = alphas.of(*place, rank)
    if rank and not 0 < abs(alpha) <= EXTREME:
        told = names.get("alpha") or f"the alpha of {place[1]}"
        raise ModelFileError(f"{path}: {told!r} is {alpha:g}, so that the adapter would be nothing, or all there is.")
    return Entry(kind, {r: n for r, n in names.items() if r != "alpha"}, rank, alpha, alphas.options(*place))


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
        downs = [(key.path, tensors.infos[name].shape) for name, key in keys.items() if key.role in INWARD]
        widths = {path.replace("_to_", ".to_"): shape[1] for path, shape in downs if len(shape) > 1}
        family, _ = lora_family({UNET: widths}, tensors.metadata)
        if family is None:
            return {}
        config = blueprint(FAMILIES[family]).unet
        unet = on_meta(lambda: UNet(config))
    return ldm_paths(unet.config, changeable(unet))


def check_pairs(path: Path, roles: Mapping[tuple[str, str], Mapping[str, str]], tensors: TensorFile) -> None:
    """Raise WeightsError unless every layer has all of an adapter, of one kind, in floating point."""
    halves = [next(iter(names.values())) for names in roles.values() if kind_of(frozenset(names)) is None]
    if halves:
        raise WeightsError(
            f"{path}: {len(halves)} of {len(roles)} adapters lack a half, or are of two kinds, first that of "
            f"{halves[0]!r}; the file is damaged or was saved half: get it again."
        )
    wrong = [told for names in roles.values() if (told := mismatch(names, tensors)) is not None]
    if wrong:
        raise WeightsError(
            f"{path}: {len(wrong)} of {len(roles)} adapters are no pairs of down [r, in] and up [out, r], or no other "
            f"whole adapters, in floating point, first {wrong[0]}; get the file again."
        )


def mismatch(names: Mapping[str, str], tensors: TensorFile) -> str | None:
    """Say what is wrong with the tensors of an adapter, None if nothing that their shapes show."""
    infos = {role: tensors.infos[name] for role, name in names.items() if role != "alpha"}
    for role, info in infos.items():
        if role != "on_input" and info.dtype not in FLOATS:
            types = " and ".join(each.dtype for each in infos.values())
            return f"{names[role]!r} of type {types}"
        if 0 in info.shape:
            return f"{names[role]!r} {list(info.shape)}"
    if infos.keys() >= {"down", "up"}:
        down, up = infos["down"].shape, infos["up"].shape
        inner = (
            infos["mid"].shape[1:2] == down[:1] and infos["mid"].shape[:1] == up[1:2]
            if "mid" in infos
            else down[:1] == up[1:2]
        )
        if len(down) not in (2, 4) or len(up) not in (2, 4) or not inner or any(size != 1 for size in up[2:]):
            return f"{names['down']!r} {list(down)} and {list(up)}"
    return None
