"""How fast a model runs on this machine, beside what the machine can do at most."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from sfumato import operations as op
from sfumato.diffusion.noise import noise_source
from sfumato.model import Model
from sfumato.nn.replay import AFTER

PROMPT = "a photograph of an astronaut riding a horse"
PRODUCT = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # rows and columns of a product that is large for the device
TIMES = 5  # of the matrix product; the fastest counts, because it stands for a limit


@dataclass(frozen=True)
class Timing:
    """One part of a picture: the median time in seconds, and its floating-point operations.

    Operations are those of convolutions and matrix products as they are written, two for a multiply and an add.
    """

    part: str
    seconds: float
    operations: int

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


@dataclass(frozen=True)
class Speed:
    """The parts of a picture of `width` x `height` pixels, and the operations per second of one matrix product.

    `limit` is measured in the model's precision on its device, in the same minute.
    """

    width: int
    height: int
    limit: float
    parts: tuple[Timing, ...]

    def picture(self, steps: int) -> float:
        """Seconds that one picture of so many steps takes, guidance included; loading is not."""
        times = {timing.part: timing.seconds for timing in self.parts}
        return times["text"] + steps * times["step"] + times["decode"]


@torch.no_grad()
def measure(model: Model, width: int, height: int, *, repeats: int = 3) -> Speed:
    """The speed of a model at a size in pixels: text, one step with guidance, decoding; the median of `repeats`.

    Each part runs once before it is timed, on CUDA until its steps are replayed.
    """
    canvas = op.Canvas(width, height, model.stride)
    x = noise_source("keyed", [0], (model.latent_channels, *canvas.cells), device=model.device).start()
    positive, negative = op.encode_text(model, PROMPT, "", canvas)
    if model.family.inpainting:
        mask = torch.ones(1, 1, *canvas.cells, device=model.device)
        positive, negative = (op.inpainting_condition(each, mask, x) for each in (positive, negative))
    if model.family.instructed:
        positive, negative = (told.each(lambda each: replace(each, concat=x)) for told in (positive, negative))
    sigma = model.schedule.sigma(len(model.schedule.sigmas) // 2)
    denoise = op.guided(
        model, positive, negative, op.Guidance(scale=model.family.guidance + 1), model.schedule.timestep
    )
    parts: dict[str, Callable[[], object]] = {
        "text": lambda: op.encode_text(model, PROMPT, "", canvas),
        "step": lambda: denoise(x, sigma),
        "decode": lambda: op.decode(model, x),
    }
    timings = tuple(timed(part, run, model.device, repeats) for part, run in parts.items())
    return Speed(width, height, product_rate(model.device, model.dtype), timings)


def timed(part: str, run: Callable[[], object], device: torch.device, repeats: int) -> Timing:
    """The median time of a part over `repeats` runs after a first one, which counts its operations."""
    with FlopCounterMode(display=False) as counter:
        run()
    for _ in range(AFTER + 1 if device.type == "cuda" else 0):
        run()
    return Timing(part, statistics.median(seconds(run, device) for _ in range(repeats)), counter.get_total_flops())


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a square matrix product: what this device does at most in this precision.

    Of random numbers: a GPU multiplies ones with less power, and therefore faster than anything that is real.
    """
    size = PRODUCT.get(device.type, PRODUCT["cpu"])
    a = torch.randn(size, size, generator=torch.Generator(device).manual_seed(0), device=device).to(dtype)
    return 2 * size**3 / min(seconds(lambda: a @ a, device) for _ in range(TIMES))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a run takes, until the device has finished it."""
    began = time.perf_counter()
    run()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began
