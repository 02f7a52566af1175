"""How much memory a request will take, before anything is loaded, and how it is made to fit what there is.

Weights are counted from the files' headers. What the networks hold while they run is counted by running them without
numbers, on PyTorch's meta device, and corrected by what was measured (`python -m bench.memory`).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sfumato.errors import MemoryLimitError, RequestError
from sfumato.model import Model, autoencoder_dtype
from sfumato.nn.autoencoder import Autoencoder
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta
from sfumato.weights.streamed import units

# What is held beside the tensors that are counted, fitted to measured peaks: see docs/models.md.
SCRATCH = 1.35  # times what is counted: copies in other layouts, pieces between tensors
CONSTANT = 125 << 20  # bytes: kernels, threads' stacks, tables of the tokenizer
TILE = 512  # pixels of an autoencoder's tile
MOST = 12 * 1024  # bytes for each pixel of a picture, of SD 1.x and XL in float32 with guidance: measured, and doubled
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", re.IGNORECASE)
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Shape:
    """What is drawn: pixels, pictures at once, whether guidance asks twice, and whether a picture is encoded.

    `seen` is the side in pixels of what the UNet sees at once, where that is a part of the picture.
    """

    width: int
    height: int
    batch: int = 1
    guided: bool = True
    encodes: bool = False
    seen: int | None = None


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


def make_plan(model: Model, shape: Shape, dtype: torch.dtype, budget: str, *, here: int, available: int) -> Plan:
    """Return how a request is run in a budget: "auto" (what is free), "low" (as little as can be), or a size.

    `model` has no weights yet (`hollow`); `here` is what the process has, `available` what it may take beyond that,
    both in bytes. Nothing is changed as long as it fits. Raises MemoryLimitError, with the numbers and a remedy, if
    nothing makes it fit, and RequestError for a budget that is none.
    """
    limit = here + available if budget in ("auto", "low") else parse_size(budget)
    held = {False: Held(model, shape, dtype), True: Held(model, shape, torch.bfloat16)}
    plans = [replace(plan, peak=here + held[plan.dtype is torch.bfloat16].bytes(plan)) for plan in steps(dtype, shape)]
    if budget == "low":
        plans = plans[-1:]
    fitting = next((plan for plan in plans if plan.peak <= limit), None)
    if fitting is not None:
        return fitting
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
    tiles = TILE * TILE if shape.width * shape.height > TILE * TILE else None
    plain = Plan(dtype)
    yield plain
    if shape.guided:
        yield replace(plain, apart=True)
    if tiles is not None:
        yield replace(plain, apart=shape.guided, tiled_above=tiles)
    yield replace(plain, streams=True, apart=shape.guided, tiled_above=tiles)
    yield Plan(torch.bfloat16, streams=True, apart=shape.guided, tiled_above=tiles)


class Held:
    """What a model holds in one precision: its weights, and what each network makes meanwhile."""

    def __init__(self, model: Model, shape: Shape, dtype: torch.dtype) -> None:
        self._model, self._shape, self._dtype = model, shape, dtype
        self._counted: dict[tuple[Any, ...], int] = {}

    def bytes(self, plan: Plan) -> int:
        """Return the peak of a plan beyond what the process has before."""
        parts = self.parts(plan)
        return int(parts["weights"] + SCRATCH * parts["running"] + CONSTANT)

    def parts(self, plan: Plan) -> dict[str, int]:
        """Return the bytes of the weights, and of what the networks hold while they run and what becomes a picture."""
        running = max(self._unet(plan.apart), self._autoencoder(plan.tiled_above))
        pictures = self._shape.width * self._shape.height * 3 * 4 * 4  # float32, while they become bytes
        return {"weights": self._weights(plan.streams), "running": running + pictures}

    def _weights(self, streams: bool) -> int:
        sizes = [sum(each.numel() for each in network.parameters()) for network in networks(self._model)]
        if streams:  # what answers, and what is left of the one before; of tables the rows that were looked at
            answering = (unit for network in networks(self._model) for _, unit in units(network))
            layers = (unit for unit in answering if not isinstance(unit, nn.Embedding))
            return 2 * max(sum(each.numel() for each in unit.parameters()) for unit in layers) * self._dtype.itemsize
        largest = max(each.numel() for network in networks(self._model) for each in network.parameters())
        return sum(sizes) * self._dtype.itemsize + 2 * largest * self._dtype.itemsize

    def _unet(self, apart: bool) -> int:
        count = self._shape.batch * (1 if apart or not self._shape.guided else 2)
        stride = self._model.stride
        seen = self._shape.seen or max(self._shape.height, self._shape.width)
        cells = (-(-min(self._shape.height, seen) // stride), -(-min(self._shape.width, seen) // stride))
        key = ("unet", count)
        if key not in self._counted:
            self._counted[key] = count_unet(self._model, count, cells, self._dtype)
        return self._counted[key]

    def _autoencoder(self, tiled_above: int | None) -> int:
        side = (self._shape.height, self._shape.width)
        if tiled_above is not None and side[0] * side[1] > tiled_above:
            side = (min(side[0], TILE), min(side[1], TILE))
        key = ("vae", side)
        if key not in self._counted:
            dtype = autoencoder_dtype(self._model.family, self._model.autoencoder, self._dtype) or self._dtype
            self._counted[key] = count_autoencoder(self._model, side, dtype, encodes=self._shape.encodes)
        return self._counted[key]


def networks(model: Model) -> tuple[nn.Module, ...]:
    """Return all networks of a model."""
    return (model.unet, model.autoencoder, *model.text.encoders)


def count_unet(model: Model, count: int, cells: tuple[int, int], dtype: torch.dtype) -> int:
    """Return the most bytes that the UNet's tensors have at once, for so many latents."""
    config = model.unet.config
    x = torch.empty(count, config.in_channels, *cells, dtype=dtype, device="meta")
    context = torch.empty(count, 77, config.cross_attention_dim, dtype=dtype, device="meta")
    more: list[Tensor | None] = [None, None]
    if config.addition_embed_type is not None:
        ids = 5 if config.addition_time_embed_dim and model.text.rules.sizes == 5 else 6
        pooled = config.addition_width - ids * (config.addition_time_embed_dim or 0)
        more = [torch.empty(count, size, dtype=dtype, device="meta") for size in (pooled, ids)]
    timestep = torch.empty(count, device="meta")
    unet: UNet = bare(model.unet, dtype)
    return most_held(unet, lambda: unet(x, timestep, context, *more))


def count_autoencoder(model: Model, side: tuple[int, int], dtype: torch.dtype, *, encodes: bool) -> int:
    """Return the most bytes that the autoencoder's tensors have at once, for a picture of this height and width."""
    autoencoder: Autoencoder = bare(model.autoencoder, dtype)
    cells = (-(-side[0] // model.stride), -(-side[1] // model.stride))
    latent = torch.empty(1, model.latent_channels, *cells, dtype=dtype, device="meta")
    found = most_held(autoencoder, lambda: autoencoder.decode(latent))
    if encodes:
        pixels = torch.empty(1, 3, *(cell * model.stride for cell in cells), dtype=dtype, device="meta")
        found = max(found, most_held(autoencoder, lambda: autoencoder.encode(pixels)))
    return found


def bare(network: Any, dtype: torch.dtype) -> Any:
    """Return a network of the same configuration without numbers, in a precision."""
    return on_meta(lambda: type(network)(network.config)).to(dtype)


def most_held(network: nn.Module, run: Callable[[], object]) -> int:
    """Return the most bytes that tensors made in a run have at once; the network's own are left out."""
    ledger = Ledger(network)
    with torch.no_grad(), Fused(), ledger:
        run()
    return ledger.most


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations make, for as long as somebody holds them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = {each.untyped_storage()._cdata for each in network.parameters()}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._own:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self._live = {key: each for key, each in self._live.items() if not each[0].expired()}  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self._live.values()))
        return made


class Fused(TorchFunctionMode):
    """Within, attention makes its answer and nothing else, as the kernel for CPUs does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def checked_budget(text: str) -> str:
    """Return a budget as it is. Raises RequestError for what is none."""
    if text not in ("auto", "low"):
        parse_size(text)
    return text


def parse_size(text: str) -> int:
    """Return bytes from "2GB" or "1500MiB" (both in powers of 1024). Raises RequestError for what is none."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise RequestError(f"memory is {text!r}; it must be auto, low, or a size such as 4GB", "memory")
    return int(float(found[1]) * 1024 ** UNITS[found[2].lower()])


def resident() -> int:
    """Return what this process has in memory, in bytes; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


def available() -> int | None:
    """Return the memory that is free for this process, in bytes; None where the system does not tell.

    On Linux: what can be had without swapping, or less where a control group limits it.
    """
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", table.read_text())
    if found is None:
        return None
    free = int(found[1]) * 1024
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            limit, taken = (int((root / name).read_text()) for name in (most, used))
        except (OSError, ValueError):  # no such group, or "max"
            continue
        free = min(free, max(limit - taken, 0))
    return free


def surely_fits(files: int, shape: Shape, free: int) -> bool:
    """Say whether a model of so many bytes on the disk, drawing this, takes so little that nothing has to be counted.

    Numbers may be twice as wide in memory, and no network of these families holds more than `MOST` for each pixel.
    """
    return 2 * files + MOST * shape.width * shape.height * shape.batch + (1 << 30) <= free


def least_size(peak: int) -> str:
    """Return a budget, as `parse_size` reads it, in which a peak fits."""
    other = 10 << 20  # bytes by which the next process may begin with more
    return f"{-(-(peak + other) // (50 << 20)) * 50}MB"


def readable_size(size: int) -> str:
    """Return a size for people."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
