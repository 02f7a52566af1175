"""The memory that pictures take, estimated before and measured after: `python -m bench.memory [--full]`.

Each configuration runs in a process of its own. Without --full, sixty of them with small and medium random networks;
with it, Stable Diffusion 1.5's sizes at 512x512 in 4 steps, as `--memory low` draws it and as it is drawn without.
"""

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

COLUMNS = ("weights", "running", "estimate", "peak")  # in MiB
LOW, HIGH, SHARE = -0.05, 0.30, 0.95  # what is promised: the estimate within these of the peak, for so many
STEPS = 1


@dataclass(frozen=True)
class Sizes:
    """Widths of a model's UNet and autoencoder, and of its text encoder."""

    unet: tuple[int, ...]
    autoencoder: tuple[int, ...]
    text: int


SMALL = Sizes((64, 128, 256, 256), (32, 64, 64, 64), 64)
MEDIUM = Sizes((128, 256, 512, 512), (64, 128, 256, 256), 256)
WIDE = Sizes((160, 320, 640, 640), (96, 192, 384, 384), 512)
MODELS = {"small": SMALL, "medium": MEDIUM, "wide": WIDE}


def configurations() -> Iterator[dict[str, Any]]:
    """Sixty ways to draw: models, precisions, sizes, pictures together, and what saves memory.

    Smaller in bfloat16, which processors without it compute many times slower.
    """
    sizes = {
        "float32": {"small": ((256, 256), (512, 384), (640, 640)), "medium": ((256, 256), (384, 320), (448, 448))},
        "bfloat16": {"small": ((128, 128), (192, 192), (256, 192)), "medium": ((96, 96), (128, 128), (160, 128))},
    }
    wide = {"float32": ((192, 192), (256, 256), (320, 256)), "bfloat16": ((64, 64), (96, 64), (96, 96))}
    for model, dtype in itertools.product(MODELS, sizes):
        for size in sizes[dtype].get(model, wide[dtype]):
            yield {"model": model, "dtype": dtype, "size": size}
            yield {"model": model, "dtype": dtype, "size": size, "streams": True, "apart": True}
    for model, (dtype, part) in itertools.product(("small", "medium"), {"float32": 1, "bfloat16": 3}.items()):
        whole = {"model": model, "dtype": dtype}
        yield {**whole, "size": (288 // part, 192 // part), "batch": 3}
        yield {**whole, "size": (384 // part, 384 // part), "guided": False}
        yield {**whole, "size": (384 // part, 384 // part), "apart": True}
        yield {**whole, "size": (640 // part // 8 * 8, 576 // part), "tiled": True, "apart": True}
        yield {**whole, "size": (384 // part, 288 // part), "image": True}
        yield {**whole, "size": (288 // part, 288 // part), "image": True, "streams": True}


def make(folder: Path, sizes: Sizes) -> None:
    """Write a random model, in float16 numbers, as a diffusers folder."""
    import torch

    from sfumato.diffusion.presets import from_scheduler_config
    from sfumato.diffusion.schedule import from_scheduler_config as schedule_from_config
    from sfumato.model import Model
    from sfumato.nn.autoencoder import Autoencoder
    from sfumato.nn.clip import TextEncoder
    from sfumato.nn.unet import UNet
    from sfumato.text.clip_vocabulary import clip_tokenizer
    from sfumato.text.encode import SD1, TextStack
    from sfumato.weights.families import SD1_AUTOENCODER, SD1_SCHEDULER, SD1_TEXT, SD1_UNET, SD15
    from sfumato.weights.save import save_folder

    scheduler = dict(SD1_SCHEDULER)
    text = replace(
        SD1_TEXT, hidden_size=sizes.text, intermediate_size=4 * sizes.text, num_hidden_layers=4, num_attention_heads=4
    )
    model = Model(
        name="random",
        source=folder,
        family=replace(SD15, size=512),
        unet=UNet(replace(SD1_UNET, block_out_channels=sizes.unet, cross_attention_dim=sizes.text)).eval(),
        autoencoder=Autoencoder(replace(SD1_AUTOENCODER, block_out_channels=sizes.autoencoder)).eval(),
        text=TextStack((clip_tokenizer(),), (TextEncoder(text).eval(),), SD1),
        schedule=schedule_from_config(scheduler),
        sampling=from_scheduler_config(scheduler),
        prediction="epsilon",
        scheduler=scheduler,
    )
    save_folder(model, folder, dtype=torch.float16)


def draw(folder: Path, told: dict[str, Any]) -> dict[str, float]:
    """Draw one picture as a configuration says, in this process; the estimate, the peak and the seconds."""
    import time

    import torch
    from PIL import Image

    from sfumato.generation import generate
    from sfumato.memory import Held, Plan, Shape, resident
    from sfumato.request import Request
    from sfumato.weights.load import hollow, open_model, read
    from sfumato.weights.streamed import read_streamed

    torch.set_num_threads(int(told.get("threads", 1)))
    width, height = told["size"]
    dtype = getattr(torch, told["dtype"])
    shape = Shape(width, height, told.get("batch", 1), told.get("guided", True), bool(told.get("image")))
    tiled = 512 * 512 if told.get("tiled") else None
    plan = Plan(dtype, streams=told.get("streams", False), apart=told.get("apart", False), tiled_above=tiled)
    opened = open_model(folder)
    held = Held(hollow(opened, "random"), shape, dtype)
    estimate = resident() + held.bytes(plan)
    began = time.monotonic()
    if plan.streams:
        model = read_streamed(opened, "random", dtype)
    else:
        model = read(opened, "random", torch.device("cpu"), dtype)
    model = replace(model, apart=plan.apart, tiled_above=plan.tiled_above)
    request = Request(
        prompt="a photograph of an astronaut riding a horse",
        seed=1,
        steps=told.get("steps", STEPS),
        guidance=7.5 if shape.guided else 1.0,
        width=width,
        height=height,
        count=shape.batch,
        batch=shape.batch,
    )
    image = Image.new("RGB", (width, height), (90, 120, 60)) if shape.encodes else None
    if image is not None:
        request = replace(request, strength=1.0, steps=2)
    pictures = generate(model, request, image=image, metadata=False)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None and len(pictures) == shape.batch
    digest = hash(pictures[0].tobytes())
    return {
        "estimate": estimate,
        "peak": int(found[1]) * 1024,
        "seconds": time.monotonic() - began,
        "digest": digest,
        **held.parts(plan),
    }


def measure(folder: Path, told: dict[str, Any]) -> dict[str, float]:
    """One configuration in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.memory", "--one", str(folder), json.dumps(told)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def error(answer: dict[str, float]) -> float:
    """How far the estimate is from the peak, as a share of it."""
    return answer["estimate"] / answer["peak"] - 1


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--full", type=Path, help="the folder of bench.folder's full-size model in float16")
    parser.add_argument("--every", type=int, default=1, help="only each so many of the configurations")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(draw(Path(chosen.one[0]), json.loads(chosen.one[1]))))
        return
    with tempfile.TemporaryDirectory() as root:
        if chosen.full:
            full = {"size": (512, 512), "steps": 4, "threads": 2, "dtype": "bfloat16"}
            runs = [(chosen.full, {**full, "streams": True, "apart": True}), (chosen.full, full)]
        else:
            for name, sizes in MODELS.items():
                make(Path(root) / name, sizes)
            runs = [
                (Path(root) / told["model"], told) for told in itertools.islice(configurations(), 0, None, chosen.every)
            ]
        errors = []
        for folder, told in runs:
            answer = measure(folder, told)
            errors.append(error(answer))
            what = ", ".join(f"{key} {value}" for key, value in told.items())
            megabytes = " ".join(f"{answer[key] / 2**20:6.0f}" for key in COLUMNS)
            print(f"{megabytes} MiB {errors[-1]:+6.1%} {answer['seconds']:6.1f} s  {what}", flush=True)
    inside = sum(LOW <= each <= HIGH for each in errors) / len(errors)
    print(f"{inside:.0%} of {len(errors)} within {LOW:+.0%} and {HIGH:+.0%}")


if __name__ == "__main__":
    main()
