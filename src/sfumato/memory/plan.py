"""How a request is run in the memory that it may take: what is given up first, and what does not fit at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from sfumato.errors import MemoryLimitError
from sfumato.memory.beside import NOTHING, Beside
from sfumato.memory.held import TILE, Held, Shape
from sfumato.memory.sizes import least_size, parse_size, readable_size
from sfumato.model import Model


@dataclass(frozen=True)
class Plan:
    """How a request is run: precision, weights left on the disk, guidance in two passes, autoencoder in tiles.

    `tiled_above` is in pixels, None for the usual limit. `peak` is the estimate in bytes of the whole process.
    """

    dtype: torch.dtype
    streams: bool = False
    apart: bool = False
    tiled_above: int | None = None
    peak: int = 0

    @property
    def saves(self) -> str:
        """What is done to need less, in words; empty if nothing is."""
        told = (
            ("weights stay on the disk", self.streams),
            (f"{str(self.dtype).removeprefix('torch.')} numbers", self.streams and self.dtype is not torch.float32),
            ("guidance in two passes", self.apart),
            ("the autoencoder in tiles", self.tiled_above is not None),
        )
        return ", ".join(text for text, holds in told if holds)


def make_plan(
    model: Model,
    shape: Shape,
    dtype: torch.dtype,
    budget: str,
    *,
    here: int,
    available: int,
    beside: Beside = NOTHING,
    converting: Callable[[torch.dtype], int] = lambda _: 0,
) -> Plan:
    """Return how a request is run in a budget: "auto" (what is free), "low" (as little as can be), or a size.

    `model` has no weights yet (`hollow`); `here` is what the process has, `available` what it may take beyond that,
    both in bytes; `beside` is what the request uses beside it; `converting` tells what the making of a file of weights
    that stay on the disk holds, in bytes. Nothing is changed as long as it fits.
    Raises MemoryLimitError, with the numbers and a remedy, if nothing makes it fit, and RequestError for a budget that
    is none.
    """
    limit = here + available if budget in ("auto", "low") else parse_size(budget)
    held = {each: Held(model, shape, each, beside, converting(each)) for each in (dtype, torch.bfloat16)}
    ways = list(steps(dtype, shape))
    plans = []
    for way in ways[-1:] if budget == "low" else ways:
        plans.append(replace(way, peak=here + held[way.dtype].bytes(way)))
        if plans[-1].peak <= limit:
            return plans[-1]
    least = min(plans, key=lambda plan: plan.peak)
    raise MemoryLimitError(
        f"{shape.width}x{shape.height}{f' with {shape.batch} pictures together' if shape.batch > 1 else ''} needs "
        f"{readable_size(plans[0].peak)}, and {readable_size(least.peak)} with everything that saves memory "
        f"({least.saves or 'nothing is left to save'}); {readable_size(limit)} are there. Draw smaller pictures"
        f"{', or fewer together (--batch 1),' if shape.batch > 1 else ''} or give it at least "
        f"{least_size(least.peak)} with --memory."
    )


def steps(dtype: torch.dtype, shape: Shape) -> Iterator[Plan]:
    """Give the ways to run, from what is usual to what takes least: first what changes the picture least."""
    tiles = TILE * TILE if shape.pixels > TILE * TILE and not shape.seamless else None
    plain = Plan(dtype)
    yield plain
    if shape.guided:
        yield replace(plain, apart=True)
    if tiles is not None:
        yield replace(plain, apart=shape.guided, tiled_above=tiles)
    yield replace(plain, streams=True, apart=shape.guided, tiled_above=tiles)
    yield Plan(torch.bfloat16, streams=True, apart=shape.guided, tiled_above=tiles)
