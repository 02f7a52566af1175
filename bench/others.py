"""Training throughput, and how fast the package and its command answer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.clock import ON_CPU
from bench.machine import BFLOAT16, units
from bench.pair import Contender, Rounds, take_turns
from bench.training import SIZES, WARM, WHO

THEIRS = "diffusers"
TITLES = {"sfumato": "sfumato", THEIRS: "diffusers", "diffusers-kept": "diffusers, freed memory kept"}
LOSS_TOLERANCE = 0.02  # relative, of the last loss; bfloat16 sums in another order
FULL_WARM, FULL_STEPS = 1, 2  # a step of SD 1.5 takes long


def training(folder: Path, rounds: int) -> Iterator[str]:
    """A table of the training steps of the embedded model's UNet."""
    contenders = [Contender(f"train-embedded-{who}", "bfloat16", folder) for who in WHO]
    for contender in contenders:
        contender.answer()
    take_turns(contenders, "train", WARM)
    taken = take_turns(contenders, "train", rounds)
    for contender in contenders:
        contender.close()
    yield from rows("embedded", "bfloat16", taken)


def training_full(folder: Path) -> Iterator[str]:
    """The same of SD 1.5's UNet, one contender after the other, because memory has room for one of them.

    In float32 where the processor has no units for bfloat16, in which a step then takes everybody three times as long.
    """
    precision = "bfloat16" if set(BFLOAT16) & set(units()) else "float32"
    taken = Rounds("train")
    for who in WHO:
        contender = Contender(f"train-full-{who}", precision, folder)
        contender.answer()
        take_turns([contender], "train", FULL_WARM)
        taken.answers |= take_turns([contender], "train", FULL_STEPS).answers
        contender.close()
    yield from rows("full", precision, taken)


def rows(name: str, precision: str, taken: Rounds) -> Iterator[str]:
    """The table of the trainers of one of SIZES; one whose loss differs has no time in it."""
    size = SIZES[name]()
    yield f"### A training step of {size.title}: batch {size.batch}, {size.cells}x{size.cells} cells, {precision}"
    yield ""
    yield "| | seconds | samples per second | speed over diffusers' | loss after the last step |"
    yield "|---|---|---|---|---|"
    theirs = f"train-{name}-{THEIRS}"
    right = taken.answers[theirs][-1]["loss"]
    for who, title in TITLES.items():
        each = f"train-{name}-{who}"
        last = taken.answers[each][-1]
        if not abs(last["loss"] - right) <= LOSS_TOLERANCE * right:
            yield f"| {title} | loss differs: no figure | | | {last['loss']:.4f} |"
            continue
        yield (
            f"| {title} | {taken.median(each):.2f} | {last['samples'] / taken.median(each):.3g} "
            f"| {taken.ratio(theirs, each):.2f} | {last['loss']:.4f} |"
        )
    yield ""


def now() -> float:
    """The wall's clock, or what the processes that have ended worked."""
    used = os.times()
    return used.children_user + used.children_system if ON_CPU else time.perf_counter()


def timed(arguments: list[str], repeats: int) -> float:
    """The least time of a process, in seconds."""
    times = []
    for _ in range(repeats):
        began = now()
        subprocess.run(arguments, check=True, capture_output=True)
        times.append(now() - began)
    return min(times)


def command(repeats: int = 5) -> list[str]:
    """A table of how fast the package is imported, and how fast the command answers."""
    python = sys.executable
    code = "import time; from bench.clock import clock; b = clock(); import sfumato; e = clock() - b; import sys; "
    code += "assert 'torch' not in sys.modules; print(e)"
    imported = min(
        float(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(repeats)
    )
    helped = timed([str(Path(python).parent / "sfumato"), "--help"], repeats)
    empty = timed([python, "-c", ""], repeats)
    return [
        "### The package and its command",
        "",
        "| | milliseconds, least of five |",
        "|---|---|",
        f"| `import sfumato`, in the interpreter | {imported * 1e3:.1f} |",
        f"| `sfumato --help`, the whole process | {helped * 1e3:.0f} |",
        f"| an interpreter that does nothing | {empty * 1e3:.0f} |",
        "",
    ]
