"""A whole picture in a new process, told by the clock and the memory that it takes.

    python -m bench.fresh sfumato|diffusers FILES PRECISION --steps N [--kept] [--stop-at-start] [--save FILE]

Prints one JSON line of seconds since the process was started and the peak of resident memory in bytes.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from bench.clock import since_start

PROMPT = "a photograph of an astronaut riding a horse"
SEED = 42
GUIDANCE = 7.5


class Clock:
    """Notes what has happened when; `stop_at` ends the process there."""

    def __init__(self, stop_at: str | None) -> None:
        self.stop_at = stop_at
        self.noted: dict[str, float] = {}

    def note(self, what: str) -> None:
        """Something has happened; the first time counts."""
        self.noted.setdefault(what, since_start())
        if what == self.stop_at:
            self.tell()
            os._exit(0)

    def tell(self) -> None:
        """Print what was noted."""
        status = Path("/proc/self/status").read_text()
        found = {name: re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmHWM", "RssAnon")}
        memory = {name: int(match[1]) * 1024 for name, match in found.items() if match}
        print(json.dumps({**self.noted, **memory}), flush=True)


def watch(network: Any, clock: Clock) -> None:
    """Note when the network is first called."""
    network.register_forward_pre_hook(lambda *_: clock.note("first step begins"))


def ours(chosen: argparse.Namespace, clock: Clock) -> Any:
    """sfumato's Python interface; metadata is left out, as diffusers writes none."""
    if chosen.kept:
        from sfumato.allocator import keep_freed_memory

        keep_freed_memory()
    import sfumato

    torch_free = sfumato.Request(
        prompt=PROMPT, seed=SEED, steps=chosen.steps, guidance=GUIDANCE, width=chosen.side, height=chosen.side
    )
    import torch

    clock.note("imported")
    model = sfumato.load(chosen.files, dtype=getattr(torch, chosen.precision))
    clock.note("loaded")
    watch(model.unet, clock)
    picture = None
    for event in sfumato.stream(model, torch_free, metadata=False):
        if isinstance(event, sfumato.Progress):
            clock.note("first step done")
            clock.noted["last step done"] = since_start()
        elif isinstance(event, sfumato.Finished):
            picture = event.picture
    return picture


def diffusers(chosen: argparse.Namespace, clock: Clock) -> Any:
    """diffusers' pipeline as its documentation runs it."""
    if chosen.kept:
        from sfumato.allocator import keep_freed_memory

        keep_freed_memory()
    from bench.peers import hide_torchvision

    hide_torchvision()
    import torch
    from diffusers import StableDiffusionPipeline

    clock.note("imported")
    dtype = getattr(torch, chosen.precision)
    pipeline = StableDiffusionPipeline.from_pretrained(chosen.files, torch_dtype=dtype)
    clock.note("loaded")
    watch(pipeline.unet, clock)

    def stepped(pipeline: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        clock.note("first step done")
        clock.noted["last step done"] = since_start()
        return given

    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPT,
        num_inference_steps=chosen.steps,
        guidance_scale=GUIDANCE,
        width=chosen.side,
        height=chosen.side,
        generator=torch.Generator().manual_seed(SEED),
        callback_on_step_end=stepped,
    ).images[0]


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=("sfumato", "diffusers"))
    parser.add_argument("files", type=Path)
    parser.add_argument("precision")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--kept", action="store_true", help="keep freed memory")
    parser.add_argument("--stop-at-start", action="store_true", help="end when the first step begins")
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    clock = Clock("first step begins" if chosen.stop_at_start else None)
    picture = {"sfumato": ours, "diffusers": diffusers}[chosen.who](chosen, clock)
    clock.note("finished")
    if chosen.save:
        picture.save(chosen.save)
    clock.tell()


if __name__ == "__main__":
    main()
