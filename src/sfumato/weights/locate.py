"""Where a model lies: a name becomes a path, from what is on this machine alone. Nothing here imports torch.

Looked at in this order: our aliases, the path itself, the folders of other programs, the local Hugging Face cache.
"""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path

from sfumato.errors import ModelNotFoundError, OutputError
from sfumato.weights.adopted import adopt, entries
from sfumato.weights.places import home as home
from sfumato.weights.places import hub_cache as hub_cache
from sfumato.weights.registry import Alias, Folder, Kind, Registry, read_registry, write_registry
from sfumato.weights.titles import match

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
COMMIT = re.compile(r"[0-9a-f]{7,40}")


def embedded_folders() -> list[Path]:
    """Return the folders of the models in the package."""
    root = Path(str(resources.files("sfumato").joinpath("embedded")))
    return sorted(path.parent for path in root.glob("*/model_index.json"))


def embedded() -> Path:
    """Return the folder of the model in the package. Raises ModelNotFoundError if this build has none."""
    found = embedded_folders()
    if not found:
        raise ModelNotFoundError(
            "no model was named, and this installation has no embedded one. Name a model: a .safetensors "
            "file, a folder, or org/name in the local cache."
        )
    return found[0]


def embedded_name() -> str | None:
    """Return the name of the model in the package, by which its pictures call it; None if this build has none."""
    try:
        return embedded().name
    except ModelNotFoundError:
        return None


def registry() -> Registry:
    """Return what was added, by name and by folder. Raises ModelFileError if the file of it is damaged."""
    return read_registry(home() / "models.json")


def aliases(kind: Kind | None = None) -> dict[str, str]:
    """Return our aliases, name -> path or `org/name[@revision]`; of a kind, those that are or may be of it."""
    known = registry().aliases
    return {name: alias.place for name, alias in known.items() if kind is None or alias.kind in (None, kind)}


def add_alias(
    name: str,
    place: Path | str,
    *,
    kind: Kind | None = None,
    prediction: str | None = None,
    overwrite: bool = False,
) -> None:
    """Give a model a name. A path is kept as an absolute one. Raises OutputError if the name is taken."""
    before = registry()
    if name in before.aliases and not overwrite:
        raise OutputError(f"the alias {name!r} is taken, by {before.aliases[name].place}; remove it first.")
    if not name or "/" in name or "\\" in name:
        raise OutputError(f"{name!r} cannot be an alias: use a name without slashes.")
    found = expanded(place)
    alias = Alias(os.path.abspath(found) if is_there(found) else str(place), kind, prediction)
    write_registry(home() / "models.json", replace(before, aliases={**before.aliases, name: alias}))


def remove_alias(name: str) -> None:
    """Forget an alias, or a folder by its path; what lies there stays. Raises ModelNotFoundError if there is none."""
    before = registry()
    kept = tuple(folder for folder in before.folders if str(folder.root) != str(expanded(name).absolute()))
    if name in before.aliases:
        names = {other: alias for other, alias in before.aliases.items() if other != name}
        write_registry(home() / "models.json", replace(before, aliases=names))
    elif len(kept) < len(before.folders):
        write_registry(home() / "models.json", replace(before, folders=kept))
    else:
        raise ModelNotFoundError(f"no alias {name!r}.{nearest(name, before.aliases)}")


def add_folder(place: Path | str) -> Folder:
    """Use another program's folder, where it is, from now on; one that was added before is looked at anew.

    Raises what `adopt` raises.
    """
    folder, before = adopt(Path(place)), registry()
    others = tuple(each for each in before.folders if each.root != folder.root)
    write_registry(home() / "models.json", replace(before, folders=(*others, folder)))
    return folder


def added_prediction(name: str | Path | None) -> str | None:
    """Return what was said of a name's prediction when it was added; None if nothing was."""
    alias = registry().aliases.get(str(name)) if isinstance(name, str) else None
    return None if alias is None else alias.prediction


def locate(name: str | Path, revision: str | None = None, *, kind: Kind = "model") -> Path:
    """Return the file or folder of a name: an alias, a path, a name in an adopted folder, or `org/name[@revision]`.

    In adopted folders of the kind it may be named as A1111 and ComfyUI do: with and without its folder and suffix, as
    `name [hash]`, by the hash alone. Raises ModelNotFoundError, which lists the places that were looked at.
    """
    if isinstance(name, Path):
        return existing(name)
    added = registry()
    alias = added.aliases.get(name)
    place = name if alias is None else alias.place
    path = expanded(place)
    if is_there(path):
        return path
    tried = [f"aliases in {home() / 'models.json'} ({len(added.aliases)})", f"path {path.absolute()}"]
    known = list(entries(added.folders, kind))
    found = match(name, known)
    if found is not None:
        return found.path
    inside = embedded_folders() if kind == "model" else []
    for folder in inside:
        if folder.name == name:
            return folder
    if added.folders:
        tried.append(f"{len(added.folders)} adopted folders ({len(known)} {kind}s)")
    repository, _, stated = place.partition("@")
    if REPOSITORY.fullmatch(repository) and ".." not in repository:
        snapshot, why = cached(repository, revision or stated or "main")
        if snapshot is not None:
            return snapshot
        tried.append(why)
    elif alias is not None:
        raise ModelNotFoundError(f"the alias {name!r} leads to {place}, where nothing is; correct or remove it.")
    names = [*added.aliases, *(each.name for each in known), *(folder.name for folder in inside)]
    raise ModelNotFoundError(f"no {kind} {name!r}. Looked at: {'; '.join(tried)}.{nearest(name, names)}")


def existing(path: Path) -> Path:
    """Return a path that exists, or raise ModelNotFoundError."""
    path = expanded(path)
    if not is_there(path):
        raise ModelNotFoundError(f"no model at {path.absolute()}.")
    return path


def expanded(place: str | Path) -> Path:
    """Return a place as a path, with ~ replaced where such a home is known."""
    try:
        return Path(place).expanduser()
    except RuntimeError:
        return Path(place)


def is_there(path: Path) -> bool:
    """Say whether something is at a path; a name that no path can have leads to nothing."""
    try:
        return path.exists()
    except OSError:  # too long, or in a folder that may not be entered
        return False


def cached(repository: str, revision: str) -> tuple[Path | None, str]:
    """Find a repository's snapshot in the local Hugging Face cache: (its folder, or None and what was looked for)."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    if not folder.is_dir():
        return None, f"cache {hub_cache()}, which has no {folder.name} (nothing is downloaded here)"
    if not REVISION.fullmatch(revision) or ".." in revision:
        return None, f"cache {folder}: {revision!r} cannot be a revision"
    reference = folder / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    if COMMIT.fullmatch(commit):
        found = sorted(folder.glob(f"snapshots/{commit}*"))
        if len(found) == 1:
            return found[0], ""
    have = sorted(str(entry.relative_to(folder / "refs")) for entry in folder.glob("refs/**/*") if entry.is_file())
    have += sorted(entry.name for entry in folder.glob("snapshots/*"))
    return None, f"cache {folder}, which has no revision {revision!r}; it has {', '.join(have) or 'none'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the name that was perhaps meant, as a sentence, or say nothing."""
    known = list(known)
    found = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""
