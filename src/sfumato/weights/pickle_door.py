"""The one door for pickles: a .ckpt, .pt, .pth or .bin file becomes, once, a safetensors file in our cache.

The cached file is named by the sha256 of the original, so that a renamed or copied checkpoint is found again and a
changed one is not mistaken. Everything in the cache may be deleted; it is made again when it is needed.
"""

import json
import logging
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from sfumato.confined import environment, program
from sfumato.errors import ModelFileError, OutputError, UnsafeCheckpointError
from sfumato.weights.hashing import hash_file
from sfumato.weights.header import Header, describe_foreign, read_header
from sfumato.weights.pickle_child import GRACE, SLOWEST
from sfumato.weights.places import home
from sfumato.weights.writing import written_aside

log = logging.getLogger(__name__)

VERSION = 1  # of what conversion makes: a new one does not read the old one's files
PICKLE = re.compile(rb"\x80[\x02-\x05]")
OLD_PICKLE = re.compile(rb"[c(\[{\]}]")  # how protocols 0 and 1, which have no first bytes of their own, may begin


def is_pickle(start: bytes) -> bool:
    """Say whether a file's first bytes are those of a pickle, or of a zip archive that may hold one."""
    return start.startswith(b"PK\x03\x04") or (PICKLE.match(start) is not None and start[8:9] != b"{")


def may_be_old_pickle(start: bytes) -> bool:
    """Say whether a file could be a pickle of protocol 0 or 1, which begins with no sign of its own."""
    return OLD_PICKLE.match(start) is not None and start[8:9] != b"{" and describe_foreign(start) is None


def converted(path: Path) -> Header:
    """Return the header of the safetensors file that a pickle was converted to, now or before.

    Raises UnsafeCheckpointError for a file that names what tensors do not need, ModelFileError for one that is damaged.
    """
    target = home() / "cache" / "checkpoints" / f"{hash_file(path)}-{VERSION}.safetensors"
    if target.is_file():
        try:
            return replace(read_header(target), source=path)
        except ModelFileError:
            log.warning("%s is damaged and is made again from %s", target, path)
    else:
        log.info("%s is converted to safetensors, once, as %s", path, target)
    before = state(path)
    try:
        check_room(path, target)
        with written_aside(target, overwrite=True) as aside:
            run_child(path, aside)
    except OutputError as error:
        raise ModelFileError(f"{path}: a pickle, which is converted before it is loaded: {error}") from error
    if state(path) != before:
        target.unlink(missing_ok=True)
        raise ModelFileError(f"{path}: was changed while it was being read; load it again.")
    return replace(read_header(target), source=path)


def state(path: Path) -> tuple[int, int, int]:
    """Return what shows that a file is still the same."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def check_room(path: Path, target: Path) -> None:
    """Raise OutputError if the disk has no room for a file as large as the original."""
    target.parent.mkdir(parents=True, exist_ok=True)
    size, free = path.stat().st_size, shutil.disk_usage(target.parent).free
    if free < size:
        raise OutputError(
            f"{size / 1e9:.1f} GB are needed in {target.parent} and {free / 1e9:.1f} GB are free; make room, or let "
            "SFUMATO_HOME name a folder on a larger disk."
        )


def run_child(path: Path, target: Path) -> None:
    """Convert a file in a process of its own, which has little memory and time and inherits nothing."""
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and module
            program("sfumato.weights.pickle_child", str(path.resolve()), str(target)),
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=2 * GRACE + path.stat().st_size / SLOWEST,
        )
        said = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(f"{path}: a pickle that takes too long to read; get it as .safetensors.") from error
    except (OSError, ValueError) as error:
        how = done.stderr.decode(errors="replace").strip()[-300:] if "done" in locals() else error
        raise ModelFileError(f"{path}: the process that reads pickles did not end well: {how}") from error
    if "unsafe" in said:
        raise UnsafeCheckpointError(said["error"], said["unsafe"])
    if "error" in said:
        raise ModelFileError(said["error"])
