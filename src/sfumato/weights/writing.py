"""Files and folders that appear whole or not at all: written aside, flushed to the disk, then renamed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfumato.errors import OutputError


@contextmanager
def written_aside(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a path to write a file to, beside `path`; it takes `path`'s place once the block has ended well.

    Raises OutputError if `path` exists and is not to be overwritten, or cannot be written; nothing is left then.
    """
    refuse_existing(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = beside(path)
        aside.touch(exist_ok=False)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        yield aside
        flush(aside)
        os.replace(aside, path)
        flush(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to fill, beside `path`; it takes `path`'s place once the block has ended well.

    An existing folder is moved away first and removed last, so that at every moment one whole model is on the disk.
    Raises OutputError as `written_aside` does.
    """
    refuse_existing(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = beside(path)
        aside.mkdir()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    old = aside.with_suffix(".old")
    try:
        yield aside
        for entry in sorted(aside.rglob("*")):
            flush(entry)
        flush(aside)
        if path.exists():
            os.replace(path, old)
        os.replace(aside, path)
        flush(path.parent)
    except OSError as error:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a small text file as a whole."""
    with written_aside(path, overwrite=True) as aside:
        aside.write_text(text, encoding="utf-8")


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if something is in the way that must not be replaced."""
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} exists. Choose another name, or replace it with --overwrite (in Python overwrite=True)."
        )


def flush(path: Path) -> None:
    """Write what the system still holds of a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def beside(path: Path) -> Path:
    """Return a hidden name beside `path` that nobody else uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
