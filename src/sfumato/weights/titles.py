"""Names as A1111 and ComfyUI write them, found among the files of their folders. Nothing here imports torch.

`sub/model.safetensors`, `model.safetensors`, `model`, A1111's titles `model.safetensors [0123456789]`, and hashes
alone: the first ten letters of the sha256, all of it, or A1111's old hash of eight. A LoRA may be called as its trainer
called it, whatever its file is called: A1111 writes that into prompts.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from sfumato.errors import ModelFileError, ModelNotFoundError
from sfumato.weights.adopted import Entry
from sfumato.weights.component_files import SUFFIXES
from sfumato.weights.hashing import hash_file, remembered
from sfumato.weights.header import read_header

TITLE = re.compile(r"(?P<name>.+?)\s*\[(?P<hash>[0-9a-fA-F]{8,64})\]")
HASH = re.compile(r"[0-9a-f]{8}|[0-9a-f]{10}|[0-9a-f]{64}")
OLD_PLACE, OLD_LENGTH = 0x100000, 0x10000  # the bytes that A1111's first hash is of


def match(name: str, entries: Sequence[Entry]) -> Entry | None:
    """Return the entry that a name means, None if it means none.

    Raises ModelNotFoundError where it means several, or where the hash of a title is another than the file's.
    """
    title = TITLE.fullmatch(name.strip())
    if title is not None:
        named = by_name(title["name"], entries)
        fitting = [entry for entry in named if has_hash(entry.path, title["hash"].lower())]
        if named and not fitting:
            raise ModelNotFoundError(
                f"{named[0].path} is called {title['name']!r} and its hash is {hash_file(named[0].path)[:10]}, not "
                f"{title['hash']}: it is another version. Name it without the hash to use it all the same."
            )
        return only(name, fitting)
    found = by_name(name, entries)
    if not found and HASH.fullmatch(name.lower()):
        found = by_hash(name.lower(), entries)
    return only(name, found or by_own_name(name, entries))


def by_name(name: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that a name fits best: as it is or in other letters, with its folder and suffix or without."""
    wanted = name.replace("\\", "/").strip("/")
    listed = list(entries)
    for fold in (str, str.lower):
        for way in range(4):
            found = [entry for entry in listed if fold(entry.names[way]) == fold(wanted)]
            if found:
                return found
    return []


def by_own_name(wanted: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the LoRAs whose metadata have a name, in kohya's ss_output_name; their headers are read for it."""
    return [entry for entry in entries if entry.kind == "lora" and own_name(entry.path) == wanted]


def own_name(path: Path) -> str | None:
    """Return what a LoRA's trainer called it; None where its file does not say it, or cannot be read."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _own_name(path, state.st_size, state.st_mtime_ns) if path.suffix.lower() == SUFFIXES[0] else None


@lru_cache(maxsize=1 << 14)
def _own_name(path: Path, size: int, changed: int) -> str | None:
    """It, of a file as it is: of that size, changed at that time."""
    try:
        return read_header(path).metadata.get("ss_output_name")
    except ModelFileError:
        return None


def by_hash(wanted: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with a hash; of the new ones, those that were computed before: it is no way to look."""
    if len(wanted) == 8:
        return [entry for entry in entries if old_hash(entry.path) == wanted]
    known = remembered()
    return [entry for entry in entries if known.get(str(entry.path.resolve()), "").startswith(wanted)]


def has_hash(path: Path, wanted: str) -> bool:
    """Say whether a file has a hash, in any of the ways that A1111 wrote them."""
    if path.is_dir():
        return False
    return hash_file(path).startswith(wanted) or (len(wanted) == 8 and old_hash(path) == wanted)


def old_hash(path: Path) -> str:
    """Return A1111's first hash: eight letters of the sha256 of 64 KiB from the file's second MiB."""
    try:
        with path.open("rb") as file:
            file.seek(OLD_PLACE)
            return hashlib.sha256(file.read(OLD_LENGTH)).hexdigest()[:8]
    except OSError:
        return ""


def only(name: str, found: Sequence[Entry]) -> Entry | None:
    """Return the only one of some entries; those with the same bytes are one. Raises ModelNotFoundError for several."""
    if len(found) > 1 and all(entry.path.is_file() for entry in found):
        try:
            first = hash_file(found[0].path) if len({entry.path.stat().st_size for entry in found}) == 1 else None
            if first is not None and all(hash_file(entry.path) == first for entry in found[1:]):
                return found[0]
        except ModelFileError:
            pass
    if len(found) > 1:
        places = ", ".join(str(entry.path) for entry in found)
        raise ModelNotFoundError(f"{name!r} is the name of {len(found)} files: {places}. Give one's path.")
    return found[0] if found else None
