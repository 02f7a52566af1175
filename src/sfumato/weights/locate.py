"""Where a model lies: a name becomes a path, from what is on this machine alone. Nothing here imports torch.

Looked at in this order: our aliases, the path itself, the local Hugging Face cache.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import platformdirs

from sfumato.errors import ModelFileError, ModelNotFoundError, OutputError
from sfumato.weights.writing import write_text

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
COMMIT = re.compile(r"[0-9a-f]{7,40}")


def home() -> Path:
    """Return the folder of our own files: SFUMATO_HOME, or where the system keeps a user's data."""
    stated = os.environ.get("SFUMATO_HOME")
    return Path(stated).expanduser() if stated else Path(platformdirs.user_data_dir("sfumato"))


def embedded() -> Path:
    """Return the folder of the model in the package. Raises ModelNotFoundError if this build has none."""
    root = Path(str(resources.files("sfumato").joinpath("embedded")))
    found = sorted(path.parent for path in root.glob("*/model_index.json"))
    if not found:
        raise ModelNotFoundError(
            f"no model was named, and this installation has no embedded one ({root}). Name a model: a .safetensors "
            "file, a folder, or org/name in the local cache."
        )
    return found[0]


def hub_cache() -> Path:
    """Return the folder of the local Hugging Face cache, by that library's own rules."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def aliases() -> dict[str, str]:
    """Return our aliases, name -> path or `org/name[@revision]`. Raises ModelFileError if their file is damaged."""
    path = home() / "models.json"
    if not path.exists():
        return {}
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))["aliases"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f'{path}: not a list of aliases, {{"aliases": {{name: place}}}}: {error!r}') from error
    if not isinstance(stated, dict) or not all(isinstance(place, str) for place in stated.values()):
        raise ModelFileError(f"{path}: aliases must map each name to a place, both text.")
    return stated


def add_alias(name: str, place: Path | str, *, overwrite: bool = False) -> None:
    """Give a model a name. A path is kept as an absolute one. Raises OutputError if the name is taken."""
    known = aliases()
    if name in known and not overwrite:
        raise OutputError(f"the alias {name!r} is taken, by {known[name]}; remove it first.")
    if not name or "/" in name or "\\" in name:
        raise OutputError(f"{name!r} cannot be an alias: use a name without slashes.")
    found = expanded(place)
    write_aliases({**known, name: str(found.resolve()) if is_there(found) else str(place)})


def remove_alias(name: str) -> None:
    """Forget an alias; the model itself stays. Raises ModelNotFoundError if there is no such alias."""
    known = aliases()
    if name not in known:
        raise ModelNotFoundError(f"no alias {name!r}.{nearest(name, known)}")
    write_aliases({other: place for other, place in known.items() if other != name})


def write_aliases(known: Mapping[str, str]) -> None:
    """Replace the file of aliases."""
    write_text(home() / "models.json", json.dumps({"aliases": dict(sorted(known.items()))}, indent=2) + "\n")


def locate(name: str | Path, revision: str | None = None) -> Path:
    """Return the file or folder of a model named by an alias, a path, or `org/name[@revision]` in the local cache.

    Raises ModelNotFoundError, which lists the places that were looked at.
    """
    if isinstance(name, Path):
        return existing(name)
    known = aliases()
    place = known.get(name, name)
    path = expanded(place)
    if is_there(path):
        return path
    tried = [f"aliases in {home() / 'models.json'} ({len(known)})", f"path {path.absolute()}"]
    repository, _, stated = place.partition("@")
    if REPOSITORY.fullmatch(repository) and ".." not in repository:
        folder, why = cached(repository, revision or stated or "main")
        if folder is not None:
            return folder
        tried.append(why)
    elif name in known:
        raise ModelNotFoundError(f"the alias {name!r} leads to {place}, where nothing is; correct or remove it.")
    raise ModelNotFoundError(f"no model {name!r}. Looked at: {'; '.join(tried)}.{nearest(name, known)}")


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


def nearest(name: str, known: Mapping[str, str]) -> str:
    """Suggest the alias that was perhaps meant, as a sentence, or say nothing."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""
