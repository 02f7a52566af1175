"""Training throughput, and how fast the package and its command answer."""

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.clock import ON_CPU
from bench.pair import Contender, take_turns
from bench.training import WARM

TRAINERS = {
    "train-sfumato": "sfumato",
    "train-diffusers": "diffusers",
    "train-diffusers-kept": "diffusers, freed memory kept",
}
LOSS_TOLERANCE = 0.02  # relative, of the last loss; bfloat16 sums in another order


def training(folder: Path, rounds: int) -> list[str]:
    """A table of the training steps of the embedded model's UNet."""
    contenders = [Contender(name, "bfloat16", folder) for name in TRAINERS]
    for contender in contenders:
        contender.answer()
    take_turns(contenders, "train", WARM)
    taken = take_turns(contenders, "train", rounds)
    for contender in contenders:
        contender.close()
    lines = [
        "### A training step of the embedded model's UNet, bfloat16 autocast",
        "",
        "| | seconds | samples per second | speed over diffusers' | loss after the last step |",
        "|---|---|---|---|---|",
    ]
    right = taken.answers["train-diffusers"][-1]["loss"]
    for name, title in TRAINERS.items():
        last = taken.answers[name][-1]
        if abs(last["loss"] - right) > LOSS_TOLERANCE * right:
            lines.append(f"| {title} | loss differs: no figure | | | {last['loss']:.4f} |")
            continue
        speed = last["samples"] / taken.median(name)
        lines.append(
            f"| {title} | {taken.median(name):.2f} | {speed:.1f} | {taken.ratio('train-diffusers', name):.2f} "
            f"| {last['loss']:.4f} |"
        )
    return [*lines, ""]


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
