"""Repositories of a Hugging Face hub into its local cache, by its own library, which is an optional extra."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import ConfigError, ModelFileError, ModelNotFoundError, SfumatoError
from sfumato.weights.component_files import COMPANION_FILE, SUFFIXES
from sfumato.weights.hashing import hash_file
from sfumato.weights.locate import REPOSITORY, cached
from sfumato.weights.places import hub_cache

COMPONENTS = frozenset(["unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"])
TEXTS = (".json", ".txt")  # configurations and vocabularies
Told = Callable[[str, float, float], None]
"""(file, bytes that are there, bytes in all)"""


@dataclass(frozen=True)
class Remote:
    """A file of a repository: its name, its size in bytes, and its sha256 where the hub tells it."""

    name: str
    size: int
    sha256: str | None


def download(place: str, *, variant: str | None = None, told: Told | None = None) -> Path:
    """Bring `org/name[@revision]` or `org/name/FILE` into the local cache; return its folder, or the file.

    What is there already is not downloaded again, what was begun is continued, and the sha256 of every weight is
    compared. Raises ConfigError without the library, ModelNotFoundError where the hub or the repository is not reached,
    ModelFileError for a file that arrived damaged or a repository in which it is not clear what the model is.
    """
    repository, revision, file = parted(place)
    hub = library()
    offline = f"{place} is not in the cache {hub_cache()}"
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "ON", "YES", "TRUE"):
        folder, why = cached(repository, revision)
        if folder is None:
            raise ModelNotFoundError(
                f"{place} is not there and HF_HUB_OFFLINE forbids to download it. Looked at: {why}."
            )
        return folder if file is None else folder / file
    try:
        found = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        remotes = [remote(each) for each in found.siblings or ()]
        wanted = [each for each in remotes if each.name == file] if file else choose(place, remotes, variant)
        if not wanted:
            raise ModelFileError(f"{place}: the repository has no such file; it has {named(remotes)}.")
        commit = str(found.sha)
        path = fetch(hub, repository, commit, wanted, told=told, alone=file is not None)
        if file is None:
            remember_revision(repository, revision, commit)
        return path
    except SfumatoError:
        raise
    except Exception as error:  # of the library, and of whatever it speaks HTTP with, which differs by its version
        detail = " ".join(str(error).split())[:300]
        raise ModelNotFoundError(f"{offline}, and the hub does not give it: {detail}") from error


def library() -> Any:
    """Return huggingface_hub. Raises ConfigError where it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ConfigError(
            "Downloading needs huggingface-hub, which is not installed: `pip install 'sfumato[hub]'`; or download the "
            "model yourself and add its path."
        ) from error
    return huggingface_hub


def parted(place: str) -> tuple[str, str, str | None]:
    """Take `org/name[@revision][/file]` apart. Raises ModelNotFoundError for what is none."""
    parts = place.split("/", 2)
    repository, _, revision = "/".join(parts[:2]).partition("@")
    if len(parts) < 2 or not REPOSITORY.fullmatch(repository) or ".." in place:
        raise ModelNotFoundError(f"{place!r} is neither a path nor `org/name[@revision]` on a hub.")
    return repository, revision or "main", parts[2] if len(parts) == 3 else None


def remote(sibling: Any) -> Remote:
    """Read what the hub tells of a file."""
    lfs = sibling.lfs or {}
    digest = lfs.get("sha256") if isinstance(lfs, dict) else lfs.sha256
    return Remote(sibling.rfilename, sibling.size or 0, digest)


def choose(place: str, remotes: Sequence[Remote], variant: str | None) -> list[Remote]:
    """Choose what is needed of a repository: a model's components, or its only weight file."""
    names = {each.name for each in remotes}
    if "model_index.json" in names:
        wanted = {name for name in names if name in ("model_index.json", "sfumato.json")}
        if "sfumato.json" in names and variant is None:  # another's file of this name may be anything
            wanted |= names & {COMPANION_FILE}
        for component in COMPONENTS:
            inside = [each.name for each in remotes if each.name.startswith(component + "/")]
            wanted |= {name for name in inside if name.endswith(TEXTS) and ".index." not in name}
            wanted |= set(weights_of(inside, variant))
        return [each for each in remotes if each.name in wanted]
    configs = [each for each in remotes if each.name in ("config.json", "adapter_config.json")]
    for suffixes in (SUFFIXES[:1], SUFFIXES):
        weights = [each for each in remotes if each.name.endswith(suffixes) and "/" not in each.name]
        if len(weights) == 1:
            return [*configs, *weights]
        if weights:
            break
    raise ModelFileError(f"{place}: it is not clear which of its files is meant: {named(remotes)}. Say {place}/FILE.")


def weights_of(names: Iterable[str], variant: str | None) -> list[str]:
    """Choose a component's weights: safetensors if there are any, of the variant if it has that, with their index."""
    names = list(names)
    for suffix in (SUFFIXES[0], ".bin"):
        for mark in ([f".{variant}"] if variant else []) + [""]:
            stems = r"(.*/)?(diffusion_pytorch_model|model|pytorch_model)"
            part, end = r"(-\d+-of-\d+)?", re.escape(suffix)
            weights = re.compile(
                rf"{stems}{part}{re.escape(mark)}{part}{end}|{stems}{end}\.index{re.escape(mark)}\.json"
            )
            files = [name for name in names if weights.fullmatch(name)]
            if any(name.endswith(suffix) for name in files):
                return files
    return []


def named(remotes: Iterable[Remote]) -> str:
    """Name a repository's weight files, or its first files."""
    files = [each.name for each in remotes]
    weights = [name for name in files if name.endswith(SUFFIXES)]
    return ", ".join((weights or files)[:8]) or "nothing"


def fetch(hub: Any, repository: str, commit: str, wanted: Sequence[Remote], *, told: Told | None, alone: bool) -> Path:
    """Download files of one commit into the cache, compare their hashes, and return the folder, or the only file."""
    total, done = float(sum(each.size for each in wanted)), 0.0
    path = Path()
    for each in wanted:
        if told is not None:
            told(each.name, done, total)
        path = Path(hub.hf_hub_download(repository, each.name, revision=commit, cache_dir=hub_cache()))
        if each.sha256 is not None and hash_file(path) != each.sha256:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise ModelFileError(
                f"{repository}: {each.name} arrived damaged (another sha256) and was removed; try again."
            )
        done += each.size
    if alone:
        return path
    folder = path
    while folder.name != commit:
        folder = folder.parent
    return folder


def remember_revision(repository: str, revision: str, commit: str) -> None:
    """Let the cache know which commit a branch or tag is, so that it is found without the network."""
    if commit.startswith(revision):  # a commit's hash is found by itself
        return
    reference = hub_cache() / f"models--{repository.replace('/', '--')}" / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit, encoding="utf-8")
