"""What a LoRA file holds, from its headers and alphas: for people who choose one."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sfumato.weights.lora_file import OpenedLora, open_lora
from sfumato.weights.lora_names import Dialect


@dataclass(frozen=True, kw_only=True)
class Group:
    """How many layers have this kind of adapter, rank and alpha."""

    kind: str = "LoRA"
    rank: int
    alpha: float
    layers: int


@dataclass(frozen=True, kw_only=True)
class LoraDescription:
    """A LoRA file: its dialect, the family that it looks made for (None: none of ours), and its adapters by network.

    The most frequent rank and alpha come first. `unmatched` counts tensors that are no layer's.
    """

    dialect: Dialect
    family: str | None
    reason: str
    networks: dict[str, tuple[Group, ...]]
    unmatched: int


def describe_lora(path: Path) -> LoraDescription:
    """Describe a LoRA file without reading its weights. Raises what `open_lora` raises."""
    opened = open_lora(path)
    family, reason = opened.family
    networks = {network: groups(opened, network) for network in opened.entries}
    return LoraDescription(
        dialect=opened.dialect, family=family, reason=reason, networks=networks, unmatched=len(opened.unmatched)
    )


def groups(opened: OpenedLora, network: str) -> tuple[Group, ...]:
    """Count the layers of a network by rank and alpha."""
    found = Counter((entry.title, entry.rank, entry.alpha) for entry in opened.entries[network].values())
    return tuple(Group(kind=k, rank=r, alpha=a, layers=layers) for (k, r, a), layers in found.most_common())
