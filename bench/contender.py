"""One contender in a process of its own: it loads once, then runs what it is told, one JSON line at a time.

    python -m bench.contender NAME PRECISION FOLDER

A line {"task": "unet" | "decode" | "product" | "train", "save": path | null} on stdin is answered by
{"seconds": s, ...} on stdout; the first answer, {"ready": s}, comes when everything is loaded and compiled.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.clock import clock
from bench.peers import hide_torchvision

Task = Callable[[], Any]
"""Does it once; what comes back can be made a NumPy array, or is a dict of figures."""

PRODUCT = 4096  # rows and columns of the matrix product that the machine's limit is taken from


def inputs(folder: Path) -> dict[str, Any]:
    """The same noised latents, timesteps, text features and latent for everybody, in float32."""
    import torch

    facts = json.loads((folder / "facts.json").read_text())
    generator = torch.Generator().manual_seed(1)
    cells = facts["cells"]
    return {
        "x": torch.randn(2, 4, cells, cells, generator=generator),
        "timestep": torch.full((2,), 481.0),
        "context": torch.randn(2, 77, facts["text"], generator=generator),
        "latent": torch.randn(1, 4, cells, cells, generator=generator),
    }


def ours(folder: Path, precision: str) -> dict[str, Task]:
    """sfumato, as its command line runs: freed memory is kept."""
    import torch

    import sfumato
    from sfumato.allocator import keep_freed_memory

    keep_freed_memory()
    dtype = getattr(torch, precision)
    model = sfumato.load(folder / "float32", dtype=dtype)
    given = {name: value if name == "timestep" else value.to(dtype) for name, value in inputs(folder).items()}
    a, b = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in range(2))
    return {
        "unet": lambda: model.unet(given["x"], given["timestep"], given["context"]),
        "decode": lambda: model.autoencoder.decode(given["latent"]),
        "product": lambda: torch.mm(a, b)[:1],
    }


def diffusers(
    folder: Path, precision: str, *, keep: bool = False, last: bool = False, compiled: bool = False
) -> dict[str, Task]:
    """diffusers: as it comes; with freed memory kept; channels last; compiled by torch.compile, frozen where it can be.

    In bfloat16 freezing fuses a sum into the convolution before it, which oneDNN then computes by its reference code
    (`ref_convolution_fwd_t`), as it has no other for that: one step takes more than ten minutes.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    if keep:
        from sfumato.allocator import keep_freed_memory

        keep_freed_memory()
    dtype = getattr(torch, precision)
    files = folder / "float32"
    unet = UNet2DConditionModel.from_pretrained(files, subfolder="unet", torch_dtype=dtype).eval()
    autoencoder = AutoencoderKL.from_pretrained(files, subfolder="vae", torch_dtype=dtype).eval()
    decode = autoencoder.decode
    if last:
        unet.to(memory_format=torch.channels_last)
        autoencoder.to(memory_format=torch.channels_last)
    if compiled:
        torch._inductor.config.freezing = precision == "float32"
        unet, decode = torch.compile(unet), torch.compile(autoencoder.decode)
    given = {name: value if name == "timestep" else value.to(dtype) for name, value in inputs(folder).items()}
    return {
        "unet": lambda: unet(given["x"], given["timestep"], given["context"]).sample,
        "decode": lambda: decode(given["latent"]).sample,
    }


def openvino(folder: Path, precision: str) -> dict[str, Task]:
    """OpenVINO: static shapes, tuned for latency, in the precision that is asked for; converted before."""
    import openvino as ov
    import torch

    core = ov.Core()
    core.set_property({"CACHE_DIR": str(folder / "openvino" / precision)})
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    unet, decode = (
        core.compile_model(folder / "openvino" / f"{name}.xml", "CPU", options) for name in ("unet", "decode")
    )
    given = {name: value.numpy() for name, value in inputs(folder).items()}
    return {
        "unet": lambda: unet([given["x"], given["timestep"], given["context"]])[0],
        "decode": lambda: decode([given["latent"]])[0],
    }


def prepare_openvino(folder: Path) -> None:
    """Convert the networks for OpenVINO, once."""
    import openvino as ov
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    target = folder / "openvino"
    given = inputs(folder)

    class Unet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = UNet2DConditionModel.from_pretrained(folder / "float32", subfolder="unet").eval()

        def forward(self, x: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return self.network(x, timestep, context, return_dict=False)[0]

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = AutoencoderKL.from_pretrained(folder / "float32", subfolder="vae").eval()

        def forward(self, latent: torch.Tensor) -> torch.Tensor:
            return self.network.decode(latent, return_dict=False)[0]

    examples = {"unet": (Unet, ("x", "timestep", "context")), "decode": (Decoder, ("latent",))}
    for name, (network, names) in examples.items():
        if (target / f"{name}.xml").is_file():
            continue
        example = tuple(given[each] for each in names)
        converted = ov.convert_model(network(), example_input=example, input=[tuple(each.shape) for each in example])
        ov.save_model(converted, target / f"{name}.xml", compress_to_fp16=False)


CONTENDERS: dict[str, Callable[[Path, str], dict[str, Task]]] = {
    "sfumato": ours,
    "diffusers": diffusers,
    "diffusers-last": lambda folder, precision: diffusers(folder, precision, last=True),
    "diffusers-kept": lambda folder, precision: diffusers(folder, precision, keep=True),
    "diffusers-last-kept": lambda folder, precision: diffusers(folder, precision, keep=True, last=True),
    "diffusers-compiled": lambda folder, precision: diffusers(folder, precision, keep=True, last=True, compiled=True),
    "openvino": openvino,
}


def save(result: Any, path: str) -> None:
    """Write a result as a float32 array."""
    import numpy as np

    array = result if isinstance(result, np.ndarray) else result.float().numpy()
    np.save(path, array.astype(np.float32))


def serve(tasks: dict[str, Task], answers: Any) -> None:
    """Run what each line of stdin asks for."""
    for line in sys.stdin:
        asked = json.loads(line)
        began = clock()
        result = tasks[asked["task"]]()
        seconds = clock() - began
        if asked.get("save"):
            save(result, asked["save"])
        figures = result if isinstance(result, dict) else {}
        answers.write(json.dumps({"seconds": seconds, **figures}) + "\n")
        answers.flush()


def main() -> None:
    """Load, say so, and serve until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("precision")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(chosen.folder / "inductor")
    hide_torchvision()
    began = time.perf_counter()
    if chosen.name == "prepare-openvino":
        prepare_openvino(chosen.folder)
        return
    import torch

    from bench.training import TRAINERS

    torch.set_grad_enabled(chosen.name in TRAINERS)
    if chosen.name in TRAINERS:
        tasks = TRAINERS[chosen.name](chosen.precision)
    else:
        tasks = CONTENDERS[chosen.name](chosen.folder, chosen.precision)
    answers.write(json.dumps({"ready": time.perf_counter() - began}) + "\n")
    answers.flush()
    serve(tasks, answers)


if __name__ == "__main__":
    main()
