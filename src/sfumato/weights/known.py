"""What can be named on this machine: models, and what goes with them. Nothing here imports torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfumato.errors import ModelNotFoundError
from sfumato.weights.adopted import entries
from sfumato.weights.locate import embedded, hub_cache, registry
from sfumato.weights.registry import KINDS, Kind

CONTROLS = frozenset({"ControlNetModel", "T2IAdapter"})  # classes of diffusers' folders


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
            yield Known(repository_of(index), "cache", str(index.parent))
    if "controlnet" in kinds:
        for config in sorted(hub_cache().glob("models--*/snapshots/*/config.json")):
            if read_class(config) in CONTROLS:
                yield Known(repository_of(config), "cache", str(config.parent), "controlnet")


def repository_of(file: Path) -> str:
    """Return the name of the repository in whose snapshot a file of the local Hugging Face cache lies."""
    repository = file.parents[2].name.removeprefix("models--").replace("--", "/", 1)
    return f"{repository}@{file.parent.name[:12]}"


def read_class(config: Path) -> str | None:
    """Return the class that a configuration is of, None if it says none or cannot be read."""
    try:
        stated = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = stated.get("_class_name") if isinstance(stated, dict) else None
    return found if isinstance(found, str) else None
