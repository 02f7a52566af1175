"""The kinds of adapters in a file: which tensors each has, and how they become the change of a layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.nn.change import Change
from sfumato.nn.lora import Adapter
from sfumato.nn.lycoris import Decomposed, Generalised, Hadamard, Kronecker, Pair, Side, Tucker, Whole
from sfumato.nn.orthogonal import Butterfly, ButterflyInputs, Rotated, RotatedInputs, Scaled
from sfumato.weights.header import TensorInfo

TITLES = {
    "lora": "LoRA",
    "locon": "LoCon with a core",
    "loha": "LoHa",
    "lokr": "LoKr",
    "oft": "OFT",
    "boft": "BOFT",
    "glora": "GLoRA",
    "ia3": "(IA)^3",
    "full": "whole weights",
}
# The tensors that make a kind, and those that it may have beside them. The first set that is there whole decides.
NEEDED: dict[str, tuple[frozenset[str], ...]] = {
    "locon": (frozenset({"down", "mid", "up"}),),
    "lora": (frozenset({"down", "up"}),),
    "loha": (frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),),
    "lokr": tuple(
        frozenset({*one, *other})
        for one in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for other in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
    "oft": (frozenset({"oft_blocks"}), frozenset({"oft_R"})),
    "boft": (frozenset({"boft_R", "boft_s"}),),
    "glora": (frozenset({"a1", "a2", "b1", "b2"}),),
    "ia3": (frozenset({"factors", "on_input"}), frozenset({"ia3_l"})),
    "full": tuple(frozenset({name}) for name in ("diff", "diff_b", "w_norm", "b_norm")),
}
BESIDE = frozenset({"alpha", "dora_scale", "magnitude", "hada_t1", "hada_t2", "lokr_t2", "rescale"})
BESIDE |= {"diff", "diff_b", "w_norm", "b_norm"}
MAGNITUDES = ("dora_scale", "magnitude")


@dataclass(frozen=True)
class Entry:
    """One layer's adapter in a file: its kind, the names of its tensors by what they are, its rank and its alpha.

    `rank` is 0 for kinds that have none, `alpha` then what limits an OFT, 0 for nothing. `options` are peft's.
    """

    kind: str
    names: Mapping[str, str]
    rank: int
    alpha: float
    options: Mapping[str, Any]

    @property
    def scale(self) -> float:
        """What an added difference is multiplied by."""
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def decomposed(self) -> bool:
        """Is it a DoRA?"""
        return any(name in self.names for name in MAGNITUDES)

    @property
    def low_rank(self) -> bool:
        """Is it an `Adapter` and nothing else, which can act beside a layer?"""
        return self.names.keys() - {"alpha"} == {"down", "up"}

    @property
    def title(self) -> str:
        """What people call it."""
        return f"DoRA over {TITLES[self.kind]}" if self.decomposed else TITLES[self.kind]


def kind_of(roles: frozenset[str]) -> str | None:
    """The kind of adapter that has these tensors, whole; None if they are half of one, or of two."""
    for kind, sets in NEEDED.items():
        for needed in sets:
            if needed <= roles and roles - needed <= BESIDE:
                return kind
    return None


def rank_of(kind: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The rank of an adapter, 0 if it has none."""
    if kind in ("lora", "locon"):
        return shapes["down"][0]
    if kind == "loha":
        return shapes["hada_w1_b"][0]
    if kind == "glora":
        return shapes["b2"][0]
    for pair in ("lokr_w2_b", "lokr_w1_b"):
        if kind == "lokr" and pair in shapes:
            return shapes[pair][0]
    return 0


def inputs_of(entry: Entry, infos: Mapping[str, TensorInfo]) -> int | None:
    """How many features go into the layer, None where the file does not show it."""
    wide = {"lora": "down", "locon": "down", "loha": "hada_w1_b", "glora": "b2", "full": "diff"}.get(entry.kind, "")
    if wide in entry.names:
        shape = infos[entry.names[wide]].shape
        return shape[1] if len(shape) > 1 else None
    if entry.kind == "lokr":
        one, other = (
            infos[entry.names.get(f"lokr_w{number}") or entry.names[f"lokr_w{number}_b"]].shape for number in (1, 2)
        )
        return one[1] * other[1] if min(len(one), len(other)) > 1 else None
    return None


def change_of(entry: Entry, tensors: Mapping[str, Tensor]) -> Change:
    """The change of a layer from an adapter's tensors. Raises ValueError if they do not go together."""
    made = _plain(entry, tensors)
    for name in MAGNITUDES:
        if name in tensors:
            return Decomposed(made, tensors[name], _side(name, tensors[name]))
    return made


def _side(name: str, magnitude: Tensor) -> Side:
    """Which features have a magnitude each: peft's are the outputs, LyCORIS' shape shows it."""
    by_input = name == "dora_scale" and magnitude.ndim > 1 and magnitude.shape[0] == 1 and magnitude.shape[1] > 1
    return "inputs" if by_input else "outputs"


def _plain(entry: Entry, of: Mapping[str, Tensor]) -> Change:
    if entry.kind == "lora":
        return Adapter(of["down"], of["up"], entry.alpha)
    if entry.kind == "locon":
        return Tucker(of["down"], of["mid"], of["up"], entry.scale)
    if entry.kind == "loha":
        one, other = (Pair(of[f"hada_w{n}_a"], of[f"hada_w{n}_b"], of.get(f"hada_t{n}")) for n in (1, 2))
        return Hadamard(one, other, entry.scale)
    if entry.kind == "lokr":
        first = of["lokr_w1"] if "lokr_w1" in of else Pair(of["lokr_w1_a"], of["lokr_w1_b"])
        second = of["lokr_w2"] if "lokr_w2" in of else Pair(of["lokr_w2_a"], of["lokr_w2_b"], of.get("lokr_t2"))
        return Kronecker(first, second, entry.scale)
    if entry.kind == "glora":
        return Generalised(of["a1"], of["a2"], of["b1"], of["b2"], entry.scale)
    if entry.kind == "boft":
        return ButterflyInputs(of["boft_R"], of["boft_s"])
    if entry.kind == "oft":
        return _rotated(entry, of)
    if entry.kind == "ia3":
        return _scaled(entry, of)
    return Whole(of.get("diff", of.get("w_norm")), of.get("diff_b", of.get("b_norm")))


def _rotated(entry: Entry, of: Mapping[str, Tensor]) -> Change:
    if "oft_blocks" in of:
        kind = Butterfly if of["oft_blocks"].ndim == 4 else Rotated
        return kind(of["oft_blocks"], entry.alpha, of.get("rescale"))
    vectors = of["oft_R"]
    if vectors.ndim != 2:
        raise ValueError(f"{list(vectors.shape)} is no row of numbers for each block")
    size = round((1 + (1 + 8 * vectors.shape[1]) ** 0.5) / 2)
    if size * (size - 1) // 2 != vectors.shape[1]:
        raise ValueError(f"{vectors.shape[1]} numbers are no upper triangle of a square block")
    q = vectors.new_zeros(len(vectors), size, size)
    rows, columns = torch.triu_indices(size, size, 1)
    q[:, rows, columns] = vectors
    series = entry.options.get("use_cayley_neumann", True)
    terms = int(entry.options.get("num_cayley_neumann_terms", 5)) if series else None
    return RotatedInputs(q - q.mT, terms)


def _scaled(entry: Entry, of: Mapping[str, Tensor]) -> Change:
    if "factors" in of:
        on_input = of["on_input"]
        if on_input.numel() != 1:
            raise ValueError(f"on_input is {list(on_input.shape)}; it is one number")
        return Scaled(1 + of["factors"].float(), "inputs" if bool(on_input.item()) else "outputs")
    factors = of["ia3_l"]
    inputs = factors.ndim == 2 and factors.shape[0] == 1 and factors.shape[1] > 1
    side: Side = "inputs" if inputs or bool(entry.options.get("feedforward")) else "outputs"
    return Scaled(factors, side, bias=True)
