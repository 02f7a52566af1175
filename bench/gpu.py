"""On a GPU, training steps and drawing, ours beside diffusers': `python -m bench --parts gpu`, or alone

    python -m bench.gpu --seconds 300 --training-compiled

Everybody is in one process and takes turns; tables are printed as they are measured, what is compiled last, and what no
time is left for is left out. `--size small --device cpu` tries the measurements themselves.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.folder import FULL, SMALL, Sizes, hollow, operations, options
from bench.peers import hide_torchvision
from bench.training import Size, embedded, full
from bench.turns import Budget, clear

if TYPE_CHECKING:
    import torch

SECONDS = 150.0
SMALL_BATCH, FULL_BATCH = 512, 8
TINY = {"block_out_channels": [32, 32, 64], "attention_head_dim": [2, 2, 4], "cross_attention_dim": 32}  # to try it


def sizes(small: bool) -> tuple[Sizes, Size, Size]:
    """What is drawn with, and the two UNets that are trained: the embedded model's and SD 1.5's; or tiny ones."""
    if small:
        tiny = replace(embedded(), options={**embedded().options, **TINY}, cells=8, batch=4)
        return SMALL, tiny, Size("a small UNet", options(SMALL)[0], 8, 2)
    return FULL, replace(embedded(), batch=SMALL_BATCH), replace(full(), batch=FULL_BATCH)


def products(device: "torch.device") -> dict["torch.dtype", float]:
    """Operations per second of a large matrix product in the precisions of drawing and of training."""
    import torch

    from bench.drawing import HALVES
    from sfumato.speed import product_rate

    precisions = {HALVES[device.type], torch.bfloat16}
    for precision in precisions:
        product_rate(device, precision)  # a device that did nothing wakes up
    return {precision: product_rate(device, precision) for precision in precisions}


def gpu(device: "torch.device", *, small: bool, seconds: float, training_compiled: bool) -> Iterator[str]:
    """The lines of all tables, each as soon as it is known; first what starts at once, then what is compiled."""
    import torch

    hide_torchvision()
    from diffusers.utils import logging

    from bench import drawing, steps

    logging.set_verbosity_error()

    budget = Budget(seconds)
    # Float32 is the reference here and nothing else; TensorFloat-32 would take half of its digits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    model, least, most = sizes(small)
    limit = products(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    yield f"On {name}; a matrix product reaches " + " and ".join(
        f"{rate / 1e12:.4g} TFLOP/s in {str(precision).removeprefix('torch.')}" for precision, rate in limit.items()
    )
    yield ""
    counted = operations(*hollow(model), model)["operations"]

    def draw(names: tuple[str, ...]) -> Iterator[str]:
        if budget.left < 0:
            yield "Left out, because no time was left: drawing with " + ", ".join(names)
            return
        for drawn in drawing.drawing(model, device, names, counted, budget):
            yield from drawn.rows(limit[drawn.dtype])

    def train(size: Size, names: tuple[str, ...]) -> list[str]:
        if budget.left < 0:
            return [f"Left out, because no time was left: training {size.title} with {', '.join(names)}"]
        with TemporaryDirectory() as folder:
            trained = steps.training(size, device, names, budget, Path(folder))
        clear(device)
        return trained.rows(steps.operations(size), limit[torch.bfloat16])

    yield from draw(drawing.EAGER)
    yield from train(least, steps.EAGER)
    yield from train(most, steps.EAGER)
    yield from draw(drawing.COMPILED)
    yield from train(least, steps.COMPILED)
    if training_compiled:
        yield from train(most, steps.COMPILED)


def part(small: bool) -> Iterator[str]:
    """The part of `python -m bench`: nothing where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        yield "### On a GPU\n\nNot measured: this machine has no CUDA device."
        return
    yield from gpu(torch.device("cuda"), small=small, seconds=SECONDS, training_compiled=False)


def main() -> None:
    """Print all tables."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m bench.gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which nothing new is begun")
    parser.add_argument("--training-compiled", action="store_true", help="SD 1.5's training steps compiled, at the end")
    chosen = parser.parse_args()
    for line in gpu(
        torch.device(chosen.device),
        small=chosen.size == "small",
        seconds=chosen.seconds,
        training_compiled=chosen.training_compiled,
    ):
        print(line, flush=True)


if __name__ == "__main__":
    main()
