"""All measurements in one run: `python -m bench`. Prints the tables of docs/speed.md."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import gpu, others, pictures
from bench.clock import ON_CPU
from bench.folder import NAMES
from bench.machine import machine
from bench.networks import EAGER, OURS, TITLES, Measured, measure
from bench.pair import Contender

PARTS = ("command", "start", "networks", "pictures", "training", "training-full", "gpu")
ROUNDS = {"float32": 2, "bfloat16": 4}
PRECISIONS = tuple(ROUNDS)
COMPILED = "diffusers-compiled"


def prepare(folder: Path, size: str, names: dict[str, list[str]]) -> None:
    """Make what is made once: the model, and what OpenVINO and PyTorch's compiler keep of it."""
    if not (folder / "facts.json").is_file():
        subprocess.run([sys.executable, "-W", "ignore", "-m", "bench.folder", str(folder), size], check=True)
    if any("openvino" in each for each in names.values()):
        arguments = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "bench.contender",
            "prepare-openvino",
            "float32",
            str(folder),
        ]
        subprocess.run(arguments, check=True)
    for precision in PRECISIONS:
        done = folder / f"compiled-{precision}"
        if COMPILED not in names[precision] or done.exists():
            continue
        began = time.perf_counter()
        contender = Contender(COMPILED, precision, folder)
        contender.answer()
        for task in ("unet", "decode"):
            contender.ask(task)
        contender.close()
        done.write_text(f"{time.perf_counter() - began:.0f}")


def verdict(measured: list[Measured]) -> list[str]:
    """Ours against diffusers' faster eager row, OpenVINO and the machine's limit, in one line each."""
    lines = ["### sfumato against the others (time over time; less than 1 is faster)", ""]
    for each in measured:
        best = each.best_eager()
        if not each.agrees(OURS):
            lines.append(f"- {each.task}, {each.precision}: sfumato's output differs; no figure")
            continue
        said = [
            f"{each.rounds.ratio(OURS, name):.2f} of {TITLES[name].split(',')[0]}{told}"
            for name, told in ((EAGER, " eager"), (best, "'s faster eager"), (COMPILED, " compiled"), ("openvino", ""))
            if name in each.rounds.answers and each.agrees(name)
        ]
        share = each.operations / each.rounds.median(OURS) / each.limit
        lines.append(
            f"- {each.task}, {each.precision}: {'; '.join(said)}; {share:.0%} of the {each.limit / 1e9:.0f} GFLOP/s "
            "that a matrix product reaches"
        )
    return [*lines, ""]


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--size", choices=NAMES, default="full", help="small tries the measurements themselves")
    parser.add_argument("--folder", type=Path, help="where the model is kept; in the temporary folder by default")
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--skip", default="", help="contenders to leave out, such as float32:diffusers-compiled")
    parser.add_argument("--rounds", type=float, default=1.0, help="times the usual number of rounds")
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.gettempdir()) / "sfumato-bench" / chosen.size
    parts, skipped = chosen.parts.split(","), set(chosen.skip.split(","))
    names = {
        precision: [name for name in TITLES if not {name, f"{precision}:{name}"} & skipped] for precision in PRECISIONS
    }
    if "networks" in parts:
        prepare(folder, chosen.size, names)
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    side = NAMES[chosen.size].side
    measured: list[Measured] = []

    def networks() -> list[str]:
        for precision in PRECISIONS:
            rounds = max(1, round(ROUNDS[precision] * chosen.rounds))
            measured.extend(measure(folder, precision, names[precision], rounds))
        return [line for each in measured for line in each.rows()] + verdict(measured)

    run: dict[str, Callable[[], Iterable[str]]] = {
        "command": others.command,
        "start": lambda: pictures.starts(folder, side, max(1, round(2 * chosen.rounds))),
        "networks": networks,
        "pictures": lambda: pictures.pictures(folder, side),
        "training": lambda: others.training(folder, max(1, round(5 * chosen.rounds))),
        "training-full": lambda: others.training_full(folder),
        "gpu": lambda: gpu.part(small=chosen.size == "small"),
    }
    clock = "processor time" if ON_CPU else "wall time"
    used = f"{os.environ.get('OMP_NUM_THREADS') or len(os.sched_getaffinity(0))} thread(s)"
    print("; ".join((machine(), used, clock, time.strftime("%Y-%m-%d"))), end="\n\n", flush=True)
    for part in PARTS:
        if part in parts:
            began = time.perf_counter()
            for line in run[part]():
                print(line, flush=True)
            print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
