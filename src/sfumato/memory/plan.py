"""How a request is run in the memory that it may take: what is given up first, and what does not fit at all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from sfumato.errors import MemoryLimitError
from sfumato.memory.beside import NOTHING, Beside
from sfumato.memory.held import TILE, Held
from sfumato.memory.need import Need
from sfumato.memory.on_device import HeldOnDevice, device_steps
from sfumato.memory.shape import Shape
from sfumato.memory.sizes import least_size, parse_size
from sfumato.model import Model

Converting = Callable[[torch.dtype], int]
"""The bytes that the making of a file of weights that stay on the disk holds, in a precision."""


@dataclass(frozen=True)
class Plan:
    """How a request is run: precision, where weights are, guidance in two passes, autoencoder in tiles.

    On a CPU weights that `streams` stay on the disk. On a GPU only those of the network that computes are there where
    it `moves`, and only those of the layer that computes where it `streams`, too. `tiled_above` is in pixels, None for
    the usual limit. `peak` is the estimate in bytes of all that the process has in the memory.
    """

    dtype: torch.dtype
    streams: bool = False
    moves: bool = False
    apart: bool = False
    tiled_above: int | None = None
    peak: int = 0

    @property
    def saves(self) -> str:
        """What is done to need less, in words; empty if nothing is."""
        told = (
            ("weights stay on the disk", self.streams and not self.moves),
            ("only the layer that computes is on the device", self.streams and self.moves),
            ("only the network that computes is on the device", self.moves and not self.streams),
            (
                f"{str(self.dtype).removeprefix('torch.')} numbers",
                self.streams and not self.moves and self.dtype is not torch.float32,
            ),
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
    converting: Converting = lambda _: 0,
    on_device: bool = False,
    moved: bool = False,
) -> Plan:
    """Return how a request is run in a budget: "auto" (what is free), "low" (as little as can be), or a size.

    `model` has no weights yet (`hollow`); `here` is what the process has, `available` what it may take beyond that,
    both in bytes; `beside` is what the request uses beside it; `converting` tells what the making of a file of weights
    that stay on the disk holds, in bytes. `on_device`: the memory is a GPU's, and with `moved` the model's weights rest
    elsewhere already. Nothing is changed as long as it fits.
    Raises MemoryLimitError, with the numbers and a remedy, if nothing makes it fit, and RequestError for a budget that
    is none.
    """
    limit = here + available if budget in ("auto", "low") else parse_size(budget)
    ways = list(device_steps(Plan(dtype), shape, moved=moved) if on_device else steps(dtype, shape))
    kind = HeldOnDevice if on_device else Held
    plans = []
    wanted = ways[-1:] if budget == "low" else ways
    for plan in counted(model, shape, wanted, here=here, beside=beside, converting=converting, kind=kind):
        plans.append(plan)
        if plan.peak <= limit:
            return plan
    need = need_of(plans)
    given = budget not in ("auto", "low")
    more = f"give it at least {least_size(need.least)} with --memory" if given else "close what else takes memory"
    raise MemoryLimitError(f"{need.told(shape, limit)}, or {more}.")


def counted(
    model: Model,
    shape: Shape,
    ways: Sequence[Plan],
    *,
    here: int,
    beside: Beside = NOTHING,
    converting: Converting = lambda _: 0,
    kind: type[Held] = Held,
) -> Iterator[Plan]:
    """Give ways to run with their peaks, each counted when it is asked for; what is given is as in `make_plan`."""
    held = {dtype: kind(model, shape, dtype, beside, converting(dtype)) for dtype in {way.dtype for way in ways}}
    for way in ways:
        yield replace(way, peak=here + held[way.dtype].bytes(way))


def need_until(
    room: int,
    model: Model,
    shape: Shape,
    dtype: torch.dtype | None,
    *,
    here: int,
    beside: Beside = NOTHING,
    converting: Converting = lambda _: 0,
) -> Need:
    """What a request needs, counted until it fits into the bytes of a room; what is given is as in `make_plan`."""
    ways = list(steps(dtype or torch.float32, shape))
    plans = []
    for plan in counted(model, shape, ways, here=here, beside=beside, converting=converting):
        plans.append(plan)
        if plan.peak <= room:
            break
    return need_of(plans, whole=len(plans) == len(ways))


def need_of(plans: Sequence[Plan], *, whole: bool = True) -> Need:
    """What is needed by the first of these plans, and by the one that takes least."""
    least = min(plans, key=lambda plan: plan.peak)
    return Need(plans[0].peak, least.peak, least.saves, whole)


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
