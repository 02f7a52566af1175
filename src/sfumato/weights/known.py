"""What can be named on this machine: models, and what goes with them. Nothing here imports torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfumato.errors import ModelNotFoundError
from sfumato.weights.adopted import entries
from sfumato.weights.locate import embedded, hub_cache, registry
from sfumato.weights.registry import KINDS, Kind


@dataclass(frozen=True)
class Known:
    """Something with a name: embedded, an alias, in another program's folder, or in the local Hugging Face cache.

    `what` it is, an alias of which nothing was told being taken for a model.
    """

    name: str
    kind: Literal["embedded", "alias", "folder", "cache"]
    place: str
    what: Kind = "model"


def known_models() -> Iterator[Known]:
    """Give every model that can be named. Raises ModelFileError if the file of aliases is damaged."""
    return known("model")


def known(*kinds: Kind) -> Iterator[Known]:
    """Give everything of some kinds, by default of all, that can be named."""
    kinds = kinds or KINDS
    added = registry()
    if "model" in kinds:
        try:
            inside: Path = embedded()
            yield Known(inside.name, "embedded", str(inside))
        except ModelNotFoundError:
            pass
    for name, alias in added.aliases.items():
        if (alias.kind or "model") in kinds:
            yield Known(name, "alias", alias.place, alias.kind or "model")
    for kind in kinds:
        for entry in entries(added.folders, kind):
            yield Known(entry.name, "folder", str(entry.path), kind)
    if "model" in kinds:
        for index in sorted(hub_cache().glob("models--*/snapshots/*/model_index.json")):
            repository = index.parents[2].name.removeprefix("models--").replace("--", "/", 1)
            yield Known(f"{repository}@{index.parent.name[:12]}", "cache", str(index.parent))
