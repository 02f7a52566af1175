"""What was added by name or by folder, as one JSON file. Nothing here imports torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from sfumato.errors import ModelFileError
from sfumato.weights.writing import write_text

Kind = Literal["model", "vae", "lora", "embedding", "controlnet", "upscaler"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Alias:
    """A name's place: a path or `org/name[@revision]`; what lies there, where that was told; what it predicts."""

    place: str
    kind: Kind | None = None
    prediction: str | None = None


@dataclass(frozen=True)
class Folder:
    """Another program's folder, used where it is: its root, whose layout it has, and the folders of each kind."""

    root: Path
    layout: str
    kinds: Mapping[Kind, tuple[Path, ...]]


@dataclass(frozen=True)
class Registry:
    """Everything that was added: names, and folders in the order in which they were added."""

    aliases: Mapping[str, Alias] = field(default_factory=lambda: MappingProxyType({}))
    folders: tuple[Folder, ...] = ()


def read_registry(path: Path) -> Registry:
    """Read the file; an absent one is an empty registry. Raises ModelFileError if it is damaged."""
    if not path.exists():
        return Registry()
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        aliases = {name: read_alias(place) for name, place in stated["aliases"].items()}
        folders = tuple(read_folder(folder) for folder in stated.get("folders", []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f'{path}: not a list of aliases, {{"aliases": {{name: place}}}}: {error!r}') from error
    return Registry(aliases, folders)


def read_alias(stated: object) -> Alias:
    """Read a place, or an object with a place and more. Raises ValueError for anything else."""
    told = {"place": stated} if isinstance(stated, str) else stated
    if not isinstance(told, dict) or not isinstance(told.get("place"), str):
        raise ValueError("aliases must map each name to a place, both text")
    kind, prediction = told.get("kind"), told.get("prediction")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"the kind {kind!r} is none of {', '.join(KINDS)}")
    return Alias(told["place"], kind, prediction if isinstance(prediction, str) else None)


def read_folder(stated: Mapping[str, Any]) -> Folder:
    """Read an adopted folder; kinds of another version are left out."""
    kinds = {kind: tuple(Path(each) for each in stated["kinds"].get(kind, [])) for kind in KINDS}
    return Folder(Path(stated["root"]), str(stated["layout"]), {kind: paths for kind, paths in kinds.items() if paths})


def write_registry(path: Path, registry: Registry) -> None:
    """Replace the file. A name of which nothing but its place is known is written as before there was more."""
    aliases = {name: write_alias(alias) for name, alias in sorted(registry.aliases.items())}
    folders = [
        {
            "root": str(folder.root),
            "layout": folder.layout,
            "kinds": {kind: [str(each) for each in paths] for kind, paths in folder.kinds.items()},
        }
        for folder in registry.folders
    ]
    stated = {"aliases": aliases} | ({"folders": folders} if folders else {})
    write_text(path, json.dumps(stated, indent=2) + "\n")


def write_alias(alias: Alias) -> str | dict[str, str]:
    """Return an alias as JSON."""
    if alias.kind is None and alias.prediction is None:
        return alias.place
    told = {"place": alias.place, "kind": alias.kind, "prediction": alias.prediction}
    return {key: value for key, value in told.items() if value is not None}
