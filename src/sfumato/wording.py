"""The files that prompts draw from, wildcards and styles, and the prompts of a request with all of it filled in.

Wildcards are text files, a choice a line, `#` begins a comment; styles are A1111's `styles.csv`: name, prompt and
negative prompt. Both lie in the folder of our own files and in folders of A1111 that were adopted. Nothing here imports
torch.
"""

import csv
import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from sfumato.errors import PromptError, RequestError
from sfumato.request import Request
from sfumato.request.said import Said
from sfumato.text.wildcards import Draws, drawn, is_drawn
from sfumato.weights.locate import home, registry

WILDCARDS = ("wildcards", "extensions/sd-dynamic-prompts/wildcards", "scripts/wildcards")  # from each root
STYLES = "styles.csv"
LARGEST = 8 * 1024 * 1024  # bytes of one file
MOST_FILES = 10_000


@dataclass(frozen=True)
class Style:
    """A named beginning or end of prompts; `{prompt}` in it is where the prompt goes."""

    name: str
    prompt: str
    negative_prompt: str = ""


class Shelf:
    """The wildcards and styles of some roots, each read when it is first asked for."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = roots
        self._lines: dict[str, tuple[str, ...]] = {}

    @cached_property
    def wildcards(self) -> dict[str, Path]:
        """The file of each wildcard, by its path without the suffix; the first root's where several have one."""
        found: dict[str, Path] = {}
        for folder in (root / each for root in self._roots for each in WILDCARDS):
            for path in sorted(folder.rglob("*.txt")) if folder.is_dir() else ():
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
                if len(found) == MOST_FILES:
                    return found
        return found

    @cached_property
    def styles(self) -> dict[str, Style]:
        """The styles by their names; the first root's where several have one."""
        found: dict[str, Style] = {}
        for path in (root / STYLES for root in self._roots):
            for style in read_styles(path) if path.is_file() else ():
                found.setdefault(style.name, style)
        return found

    def lines(self, name: str) -> tuple[str, ...]:
        """The choices of a wildcard. Raises PromptError for one that is not there, or has none."""
        if name not in self._lines:
            paths = self._fitting(name)
            if not paths:
                raise PromptError(
                    f"The prompt has __{name}__, but there is no such wildcard{_nearest(name, self.wildcards)}; put "
                    f"{name}.txt into {self._roots[0] / WILDCARDS[0]}, or write it in the dialect plain.",
                    "prompt",
                )
            choices = (line.strip() for path in paths for line in _text(path).splitlines())
            self._lines[name] = tuple(line for line in choices if line and not line.startswith("#"))
        if not self._lines[name]:
            raise PromptError(f"The prompt has __{name}__, whose file {self._fitting(name)[0]} is empty.", "prompt")
        return self._lines[name]

    def _fitting(self, name: str) -> list[Path]:
        """The files of a wildcard: of that name, else of those that fit it, in any folder.

        dynamicprompts: wildcards/wildcard_manager.py; `*` goes on over folders.
        """
        if name in self.wildcards:
            return [self.wildcards[name]]
        for pattern in (name, f"**/{name}"):
            found = [path for each, path in self.wildcards.items() if fnmatchcase(each, pattern)]
            if found:
                return found
        return []

    def style(self, name: str) -> Style:
        """A style. Raises RequestError for one that is not there."""
        if name not in self.styles:
            raise RequestError(
                f"styles has {name!r}, which is no style{_nearest(name, self.styles)}; styles are read from "
                f"{self._roots[0] / STYLES}, with the columns name, prompt and negative_prompt",
                "styles",
            )
        return self.styles[name]


def shelf() -> Shelf:
    """The wildcards and styles of our own folder and of those that were adopted."""
    roots = (folder.root for folder in registry().folders if folder.root.is_dir())
    return Shelf((home(), *roots))


def read_styles(path: Path) -> Iterator[Style]:
    """The styles of a `styles.csv`. Raises RequestError for a file that is none."""
    rows = csv.DictReader(io.StringIO(_text(path)))
    try:
        columns, found = rows.fieldnames or (), list(rows)
    except csv.Error as error:
        raise RequestError(f"{path} is no list of styles: {error} in line {rows.line_num}", "styles") from error
    if "name" not in columns or not {"prompt", "text"} & set(columns):
        raise RequestError(f"{path} is no list of styles: it needs the columns name, prompt, negative_prompt", "styles")
    for row in found:
        if row["name"]:
            yield Style(row["name"], row.get("prompt") or row.get("text") or "", row.get("negative_prompt") or "")


def styled(prompt: str, style: str) -> str:
    """A prompt in a style: where it says {prompt}, or before it with a comma between, as A1111 does."""
    if "{prompt}" in style:
        return style.replace("{prompt}", prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)


def filled_in(request: Request, *, books: Shelf | None = None) -> Mapping[int, Said]:
    """The prompts of each picture with styles and everything that is drawn filled in; none where nothing is.

    It depends on the request, which must have a seed, and on the files. Raises PromptError and RequestError.
    """
    texts = (*request.prompts, request.negative_prompt, *(region.prompt for region in request.regions))
    if not request.styles and (request.dialect == "plain" or not any(map(is_drawn, texts))):
        return {}
    books = books or shelf()
    styles = [books.style(name) for name in request.styles]
    return {index: _said(request, index, styles, books) for index in range(request.total)}


def _said(request: Request, index: int, styles: list[Style], books: Shelf) -> Said:
    prompt, negative = request.prompts[index // request.count], request.negative_prompt
    for style in styles:
        prompt, negative = styled(prompt, style.prompt), styled(negative, style.negative_prompt)
    regions = tuple(region.prompt for region in request.regions)
    if request.dialect == "plain":
        return Said(prompt, negative, regions)
    seed = request.seed_of(index)

    def draw(text: str, purpose: str) -> str:
        return drawn(text, Draws(seed, purpose), books.lines) if is_drawn(text) else text

    places = tuple(draw(text, f"region {number}") for number, text in enumerate(regions))
    return Said(draw(prompt, "prompt"), draw(negative, "negative"), places)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise RequestError(f"{path} is larger than {LARGEST} bytes, which no list of words or styles is")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
