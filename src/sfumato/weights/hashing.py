"""Which weights exactly: sha256 of files, remembered by path, size and time of change."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sfumato.errors import ModelFileError, OutputError
from sfumato.weights.places import home
from sfumato.weights.writing import write_text

Remembered = dict[str, tuple[int, int, str]]


def hash_files(paths: Iterable[Path]) -> str:
    """Return the sha256 of a file, or of the sha256s of several in their order (shards), as hexadecimal text."""
    hashes = [hash_file(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file; it is read only if its size or time of change is not the remembered one's.

    Raises ModelFileError if the file cannot be read.
    """
    key = str(path.resolve())
    try:
        state = path.stat()
        known = read_memory().get(key)
        if known is not None and known[:2] == (state.st_size, state.st_mtime_ns):
            return known[2]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    remember(key, (state.st_size, state.st_mtime_ns, found))
    return found


def remembered() -> dict[str, str]:
    """Return the hashes of files that have not changed since: path -> sha256."""
    found = {}
    for key, (size, time, digest) in read_memory().items():
        try:
            state = Path(key).stat()
        except OSError:
            continue
        if (state.st_size, state.st_mtime_ns) == (size, time):
            found[key] = digest
    return found


def read_memory() -> Remembered:
    """Return what is remembered: path -> (size, time of change in nanoseconds, sha256). A damaged memory is empty."""
    try:
        stated = json.loads((home() / "hashes.json").read_text(encoding="utf-8"))
        return {path: (int(size), int(time), str(found)) for path, (size, time, found) in stated.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(key: str, entry: tuple[int, int, str]) -> None:
    """Remember a hash; where our folder cannot be written it is computed again next time."""
    try:
        write_text(home() / "hashes.json", json.dumps({**read_memory(), key: entry}, indent=0) + "\n")
    except OutputError:
        return
