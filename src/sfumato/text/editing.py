"""Prompts that change in the course of a run, in the dialect of stable-diffusion-webui.

`[a:b:0.5]` is a until half of the steps are done and b from there on, `[a:b:12]` until 12 steps are; `[b:0.5]` is
nothing before, `[a::0.5]` nothing after; `[a|b|c]` takes turns, step by step. All of it may be nested. A number with a
point is a share of the steps, one without counts them. What is no such thing, such as `[a]`, stays as it is.

In the second pass of a hires fix the numbers go on from those of the first: of it are shares from 1 to 2, and counts
above the first pass's steps; what is below has changed before it begins.

A step is a step of the sampler, whatever it evaluates within. (The webui counts evaluations from 0 and compares with
"not above", so that there each text holds for one evaluation more.)

Linear in the length of the prompt, for each step at which the text changes, and without recursion.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_PAIRS = {")": "(", "]": "["}


@dataclass(frozen=True)
class Stretch:
    """The text of a prompt from one step to another; `until` counts the steps that are done when it ends."""

    until: int
    text: str


@dataclass(frozen=True)
class _Run:
    """So many steps; after a first pass, those that it had `before`."""

    steps: int
    before: int | None = None


@dataclass(frozen=True)
class _Switch:
    """One text before a number of steps and another after it; `when` is a share of the steps where `share` says so."""

    before: "tuple[_Piece, ...]"
    after: "tuple[_Piece, ...]"
    when: float
    share: bool

    def step(self, run: "_Run") -> int:
        """How many steps of a run are done when the text changes."""
        before = 0 if run.before is None else 1 if self.share else run.before
        when = self.when - before
        return int(max(-1.0, min(when * run.steps if self.share else when, run.steps)))


@dataclass(frozen=True)
class _Turns:
    """Texts that take turns."""

    options: "tuple[tuple[_Piece, ...], ...]"


_Piece: TypeAlias = str | _Switch | _Turns


@dataclass
class _Frame:
    """A bracket that is open: where it opened among the pieces, and where its colons and bars are."""

    bracket: str
    start: int
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)
    broken: bool = False  # something within closed that had not been opened


def stretches(text: str, steps: int, before: int | None = None) -> tuple[Stretch, ...]:
    """The texts of a prompt in the course of a run of so many steps, at least one; neighbours differ.

    `before`: the steps of the first pass, in the second.
    """
    pieces, run = _read(text), _Run(steps, before)
    found: list[Stretch] = []
    for step in _changes(pieces, run):
        said = _said(pieces, step, run)
        if found and found[-1].text == said:
            found.pop()
        found.append(Stretch(step, said))
    return tuple(found)


def _read(text: str) -> tuple[_Piece, ...]:
    pieces: list[_Piece] = []
    frames: list[_Frame] = []
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark in ("(", "["):
            frames.append(_Frame(mark, len(pieces)))
        elif mark in _PAIRS and frames:
            if frames[-1].bracket == _PAIRS[mark]:
                frame = frames.pop()
                made = _made(pieces, frame) if mark == "]" else None
                if made is not None:
                    del pieces[frame.start :]
                    pieces.append(made)
                    continue
            else:
                frames[-1].broken = True
        elif mark == ":" and frames:
            frames[-1].colons.append(len(pieces))
        elif mark == "|" and frames:
            frames[-1].bars.append(len(pieces))
        pieces.append(mark)
    return tuple(pieces)


def _made(pieces: list[_Piece], frame: _Frame) -> _Piece | None:
    """What a pair of square brackets means, None if nothing but itself. Its opening is at the frame's start."""
    first, colons, bars = frame.start + 1, frame.colons, frame.bars
    if frame.broken:
        return None
    if bars and not colons:
        bounds = zip([first, *(bar + 1 for bar in bars)], [*bars, len(pieces)], strict=True)
        return _Turns(tuple(tuple(pieces[start:end]) for start, end in bounds))
    if len(colons) not in (1, 2) or len(pieces) != colons[-1] + 2:
        return None
    last = pieces[-1]
    number = _NUMBER.fullmatch(last) if isinstance(last, str) else None
    if number is None:
        return None
    before = tuple(pieces[first : colons[0]]) if len(colons) == 2 else ()
    after = tuple(pieces[colons[0] + 1 if len(colons) == 2 else first : colons[-1]])
    return _Switch(before, after, float(number[1]), "." in number[1])


def _changes(pieces: tuple[_Piece, ...], run: _Run) -> list[int]:
    """The steps after which the text may change, and the last."""
    found, pending = {run.steps}, list(pieces)
    while pending:
        piece = pending.pop()
        if isinstance(piece, _Switch):
            if piece.step(run) >= 1:
                found.add(piece.step(run))
            pending += piece.before
            pending += piece.after
        elif isinstance(piece, _Turns):
            found.update(range(1, run.steps + 1))
            pending += (each for option in piece.options for each in option)
    return sorted(found)


def _said(pieces: tuple[_Piece, ...], step: int, run: _Run) -> str:
    """The text in a step, which are counted from 1."""
    found: list[str] = []
    pending: list[Iterator[_Piece]] = [iter(pieces)]
    while pending:
        piece = next(pending[-1], None)
        if piece is None:
            pending.pop()
        elif isinstance(piece, str):
            found.append(piece)
        elif isinstance(piece, _Switch):
            pending.append(iter(piece.before if step <= piece.step(run) else piece.after))
        else:
            pending.append(iter(piece.options[(step - 1) % len(piece.options)]))
    return "".join(found)
