"""Whole pictures in new processes: how long until the first step, how long in all, and how much memory."""

import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.pair import fresh

STEPS = 4
WHO = {
    "sfumato": ("sfumato", ("--kept",)),
    "diffusers": ("diffusers", ()),
    "diffusers, freed memory kept": ("diffusers", ("--kept",)),
}
STARTS = (("float16", "float32"), ("float32", "float32"), ("float16", "bfloat16"))
"""Precision of the files, and precision that is computed in."""

PICTURES = (("float32", "float32"), ("float16", "bfloat16"))
LEVELS = {"float32": 2, "bfloat16": 48}  # of 255, mean difference allowed; half precision drifts with random weights
LONG = 30  # steps that the whole picture is extended to


@dataclass(frozen=True)
class Run:
    """What one process said."""

    who: str
    files: str
    precision: str
    said: dict[str, Any]

    @property
    def step(self) -> float:
        """Seconds of one step after the first."""
        return (self.said["last step done"] - self.said["first step done"]) / (STEPS - 1)

    def total(self, steps: int) -> float:
        """Seconds from the start of the process to a picture of so many steps: the measured one and more steps."""
        return self.said["finished"] + (steps - STEPS) * self.step


def run(folder: Path, who: str, files: str, precision: str, side: int, *more: str) -> Run:
    """One new process."""
    name, options = WHO[who]
    arguments = ["bench.fresh", name, str(folder / files), precision, "--side", str(side), "--steps", str(STEPS)]
    return Run(who, files, precision, fresh([*arguments, *options, *more], os.environ))


def starts(folder: Path, side: int, repeats: int) -> list[str]:
    """A table of the time from the start of a process to the first step; files are in the page cache."""
    lines = [
        "### From the start of the process to the first step",
        "",
        "| files | computed in | sfumato: imported, loaded, at the first step | diffusers: the same | ratio |",
        "|---|---|---|---|---|",
    ]
    for files, precision in STARTS:
        runs: dict[str, list[Run]] = {"sfumato": [], "diffusers": []}
        for _ in range(repeats):
            for who, taken in runs.items():
                taken.append(run(folder, who, files, precision, side, "--stop-at-start"))
        told = {who: ", ".join(f"{moment(taken, at):.2f}" for at in MOMENTS) + " s" for who, taken in runs.items()}
        ratio = moment(runs["sfumato"], MOMENTS[-1]) / moment(runs["diffusers"], MOMENTS[-1])
        lines.append(f"| {files} | {precision} | {told['sfumato']} | {told['diffusers']} | {ratio:.2f} |")
    return [*lines, ""]


MOMENTS = ("imported", "loaded", "first step begins")


def moment(runs: Iterable[Run], what: str) -> float:
    """The median time of something."""
    return statistics.median(each.said[what] for each in runs)


def pictures(folder: Path, side: int) -> list[str]:
    """A table of whole pictures, their memory, and how far they are from diffusers'."""
    lines = [
        f"### A whole picture of {side}x{side} with guidance, {STEPS} steps, in a new process",
        "",
        f"| computed in (files) | | seconds | until the first step is done | a step | decoded in | {LONG} steps "
        "(extended) | peak memory | levels from diffusers, mean (most) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for files, precision in PICTURES:
        paths = {who: folder / "outputs" / f"{number}-{precision}.png" for number, who in enumerate(WHO)}
        for who, path in paths.items():
            drawn = run(folder, who, files, precision, side, "--save", str(path))
            said = drawn.said
            lines.append(
                f"| {precision} ({files}) | {who} | {said['finished']:.1f} | {said['first step done']:.1f} "
                f"| {drawn.step:.2f} | {said['finished'] - said['last step done']:.2f} | {drawn.total(LONG):.0f} "
                f"| {said['VmHWM'] / 2**30:.2f} GiB | {{{who}}} |"
            )
        found = {who: levels(path, paths["diffusers"]) for who, path in paths.items()}
        lines = [told(line, found, precision) for line in lines]
    return [*lines, ""]


def told(line: str, found: dict[str, tuple[float, int]], precision: str) -> str:
    """The line with the difference of its picture, or without its figures where the picture is another one."""
    for who, (mean, most) in found.items():
        if f"{{{who}}}" not in line:
            continue
        if mean > LEVELS[precision]:
            return f"| {precision} | {who} | picture differs: no figure | | | | | | {mean:.2f} ({most}) |"
        return line.replace(f"{{{who}}}", f"{mean:.2f} ({most})")
    return line


def levels(path: Path, other: Path) -> tuple[float, int]:
    """Mean and largest difference of two pictures, in levels of 255."""
    import numpy as np
    from PIL import Image

    a, b = (np.asarray(Image.open(each)).astype(int) for each in (path, other))
    return float(np.abs(a - b).mean()), int(np.abs(a - b).max())
