"""The UNet step and the decoding of everybody, in one precision, and how they are told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.pair import Contender, Rounds, difference, take_turns, warm

OURS, EAGER, TUNED = "sfumato", "diffusers", "diffusers-last-kept"
TITLES = {
    OURS: "sfumato",
    EAGER: "diffusers, eager",
    TUNED: "diffusers, eager, channels last, freed memory kept",
    "diffusers-compiled": "diffusers, compiled (float32: frozen), channels last, freed memory kept",
    "openvino": "OpenVINO, static shapes",
}
TASKS = {"unet": "UNet step", "decode": "decoding"}
FLOAT32_TOLERANCE = 1e-4  # of the norm: sums of thousands of products in another order, through some fifty layers
BFLOAT16_FACTOR = 2.0  # times the error of diffusers' own bfloat16


@dataclass(frozen=True)
class Measured:
    """One task in one precision: times, errors against diffusers' float32, and the machine's matrix product."""

    task: str
    precision: str
    rounds: Rounds
    errors: dict[str, float]
    allowed: float
    operations: int
    limit: float  # operations per second of a matrix product in this precision, in the same minutes

    def agrees(self, name: str) -> bool:
        """Is the output within the tolerance?"""
        return self.errors[name] <= self.allowed

    def best_eager(self) -> str:
        """The faster of diffusers' two eager rows."""
        return min((EAGER, TUNED), key=self.rounds.median)

    def rows(self) -> list[str]:
        """A table; a contender whose output differs has no time in it."""
        lines = [
            f"### {TASKS[self.task]}, {self.precision}",
            "",
            "| | seconds (least - most) | of diffusers eager | GFLOP/s | of the matrix product | relative error |",
            "|---|---|---|---|---|---|",
        ]
        for name, taken in self.rounds.answers.items():
            error = f"{self.errors[name]:.1e}"
            if not self.agrees(name):
                lines.append(f"| {TITLES[name]} | output differs: no figure | | | | {error} |")
                continue
            seconds = [answer["seconds"] for answer in taken]
            speed = self.operations / self.rounds.median(name)
            lines.append(
                f"| {TITLES[name]} | {self.rounds.median(name):.3f} ({min(seconds):.3f} - {max(seconds):.3f}) "
                f"| {self.rounds.ratio(name, EAGER):.2f} | {speed / 1e9:.0f} | {speed / self.limit:.0%} | {error} |"
            )
        return [*lines, ""]


def measure(folder: Path, precision: str, names: Sequence[str], rounds: int) -> list[Measured]:
    """Both tasks of the contenders in one precision. Without diffusers in float32 before, bfloat16 has no reference."""
    outputs = folder / "outputs"
    outputs.mkdir(exist_ok=True)
    operations = json.loads((folder / "facts.json").read_text())["operations"]
    contenders = [Contender(name, precision, folder) for name in names]
    for contender in contenders:
        contender.answer()
    ours = contenders[0]
    measured = []
    for task in TASKS:
        paths = warm(contenders, task, outputs)
        reference = outputs / f"{EAGER}-float32-{task}.npy"
        errors = {name: difference(path, reference) for name, path in paths.items()}
        allowed = FLOAT32_TOLERANCE if precision == "float32" else BFLOAT16_FACTOR * errors[EAGER]
        ours.ask("product")
        limit = 2 * 4096**3 / min(ours.ask("product")["seconds"] for _ in range(3))
        taken = take_turns(contenders, task, rounds)
        measured.append(Measured(task, precision, taken, errors, allowed, operations[task], limit))
    for contender in contenders:
        contender.close()
    return measured
