"""Where pictures go, and what is said of them on stdout."""

import json
import re
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.errors import OutputError, OutputFormatError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def slug(prompt: str, length: int = 40) -> str:
    """The words of a prompt as a part of a file name: ASCII where that is possible, at most `length` characters."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower())[:length].strip("-") or "picture"


def write_document(value: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def write_line(text: object) -> None:
    """Print one line, at once: who reads the pipe should not wait for the end."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass
class Gallery:
    """The pictures of one run: names them, writes each as it comes, tells the paths. `output` is as the user gave it.

    A path with a picture's suffix names the file (with -2, -3, ... before the suffix when there are several), or the
    sheet of them all where it `names_sheet` (the pictures are -1, -2, ...); any other is a folder. Raises OutputError
    early: for a suffix that is no picture's, or a file that exists.
    """

    output: str | None
    total: int
    overwrite: bool = False
    metadata: bool = True
    told: bool = True  # whether paths are printed as they come
    names_sheet: bool = False
    written: list[dict[str, Any]] = field(default_factory=list)
    stamp: str = field(default_factory=lambda: time.strftime("%Y%m%d-%H%M%S"))

    def __post_init__(self) -> None:
        self._file: Path | None = None
        self._folder = Path("outputs")
        if self.output is not None:
            path = Path(self.output).expanduser()
            if path.suffix.lower() in SUFFIXES and not path.is_dir():
                self._file, self._folder = path, path.parent
            elif path.suffix and not path.is_dir() and not self.output.endswith("/"):
                raise OutputFormatError(
                    f"--output {self.output} is neither a folder nor a picture; pictures end in "
                    f"{', '.join(SUFFIXES)}, and a new folder with a dot in its name needs a / at the end."
                )
            else:
                self._folder = path
        if self._folder.exists() and not self._folder.is_dir():
            raise OutputError(f"--output: {self._folder} is a file, so no pictures can be put into it.")
        if self._file is not None and not self.overwrite:
            for taken in [*map(self._named, range(1, self.total + 1)), *([self._file] if self.names_sheet else [])]:
                if taken.exists():
                    raise OutputError(f"{taken} exists. Choose another name, or replace it with --overwrite.")

    def add(self, picture: "Image", name: str, about: Mapping[str, Any]) -> Path:
        """Write one picture under the user's name or `name`, and tell its path."""
        path = self._save(picture, name, len(self.written) + 1)
        self.written.append({"path": str(path), **about})
        if self.told:
            write_line(path)
        return path

    def add_grid(self, pictures: "Sequence[Image]", columns: int) -> Path:
        """Write all the pictures as one; `columns` 0 makes it as square as can be."""
        from sfumato.images import grid

        return self.add_sheet(grid(pictures, columns or None))

    def add_sheet(self, whole: "Image") -> Path:
        """Write a picture of all the pictures, under the user's name for it, or that of the run with `-grid`."""
        if self._file is not None and self.names_sheet:
            path = self._write(whole, self._file, metadata=bool(whole.info))
        else:
            base = self._file or self._folder / f"{self.stamp}.png"
            path = self._free(base.with_stem(f"{base.stem}-grid"), whole, metadata=bool(whole.info))
        if self.told:
            write_line(path)
        return path

    def _save(self, picture: "Image", name: str, number: int) -> Path:
        if self._file is None:
            return self._free(self._folder / f"{self.stamp}-{name}.png", picture, metadata=self.metadata)
        return self._write(picture, self._named(number), metadata=self.metadata)

    def _write(self, picture: "Image", path: Path, *, metadata: bool) -> Path:
        from sfumato.metadata import save

        path.parent.mkdir(parents=True, exist_ok=True)
        return save(picture, path, metadata=metadata, overwrite=self.overwrite)

    def _free(self, path: Path, picture: "Image", *, metadata: bool) -> Path:
        """Write under `path`, or under the first of path-2, path-3, ... that nobody has taken meanwhile."""
        from sfumato.metadata import save

        path.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            free = self._numbered(path, number)
            try:
                return save(picture, free, metadata=metadata)
            except OutputError:
                if not free.exists():
                    raise
                number += 1

    def _named(self, number: int) -> Path:
        """The path of a picture under the user's name."""
        assert self._file is not None
        if self.names_sheet:
            return self._file.with_stem(f"{self._file.stem}-{number}")
        return self._numbered(self._file, number)

    @staticmethod
    def _numbered(path: Path, number: int) -> Path:
        return path if number == 1 else path.with_stem(f"{path.stem}-{number}")
