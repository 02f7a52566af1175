"""A UNet step and a decoding on a device, ours and diffusers', eager and compiled, with the same weights and inputs."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.folder import Sizes, fill, hollow, options
from bench.networks import BFLOAT16_FACTOR
from bench.turns import Budget, Step, Turns, clear, take_turns
from sfumato.model import autoencoder_order
from sfumato.nn.replay import Replayed
from sfumato.train.device import channels_last

THEIRS = "diffusers"
TASKS = {"unet": "UNet step of two", "decode": "decoding"}
FIRST = "sfumato, first steps"  # of a picture, which are not replayed
EAGER = ("sfumato", FIRST, THEIRS, "diffusers, channels last")
COMPILED = (THEIRS, "sfumato, compiled", "diffusers, compiled")
HALVES = {"cuda": torch.float16, "cpu": torch.bfloat16}  # what is fast there
MODE = "reduce-overhead"  # of torch.compile: with CUDA graphs, as kernels of two pictures do not hide their launch


@dataclass(frozen=True)
class Drawn:
    """One task of everybody: turns, errors against diffusers' float32, and what may be."""

    task: str
    dtype: torch.dtype
    taken: Mapping[str, Turns]
    errors: Mapping[str, float]
    operations: int

    def rows(self, limit: float) -> list[str]:
        """A table; one whose output differs has no time in it. `limit` is that of a matrix product, in FLOP/s."""
        lines = [
            f"### {TASKS[self.task]}, {str(self.dtype).removeprefix('torch.')}",
            "",
            "| | milliseconds (least - most) | speed over diffusers' | TFLOP/s | of the matrix product | memory "
            "| ready after | relative error |",
            "|---|---|---|---|---|---|---|---|",
        ]
        allowed = BFLOAT16_FACTOR * self.errors.get(THEIRS, float("nan"))
        for name, turns in self.taken.items():
            if turns.failed:
                lines.append(f"| {name} | {turns.failed} | | | | | | |")
                continue
            error = f"{self.errors[name]:.1e}"
            if not self.errors[name] <= allowed:
                lines.append(f"| {name} | output differs: no figure | | | | | | {error} |")
                continue
            speed = self.operations / turns.median
            lines.append(
                f"| {name} | {milliseconds(turns)} | {ratio(self.taken, THEIRS, name)} | {speed / 1e12:.3g} "
                f"| {speed / limit:.0%} | {turns.memory / 2**30:.2f} GiB | {turns.ready:.0f} s | {error} |"
            )
        return [*lines, ""]


def milliseconds(turns: Turns) -> str:
    """The median time with the least and the most."""
    return f"{turns.median * 1e3:.2f} ({min(turns.times) * 1e3:.2f} - {max(turns.times) * 1e3:.2f})"


def ratio(taken: Mapping[str, Turns], other: str, name: str) -> str:
    """How many times as fast one is as another, the median over the rounds; nothing without the other."""
    if other not in taken or taken[other].failed:
        return ""
    return f"{statistics.median(a / b for a, b in zip(taken[other].times, taken[name].times, strict=True)):.2f}"


class Networks:
    """diffusers' UNet and autoencoder with random weights in float32 on a device, and the inputs of both tasks."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.device, self.dtype = device, HALVES[device.type]
        self.unet_options, self.autoencoder_options = options(sizes)
        unet, autoencoder = hollow(sizes)
        generator = torch.Generator(device).manual_seed(0)
        self.theirs: dict[str, Any] = {}
        for name, network in (("unet", unet), ("decode", autoencoder)):
            self.theirs[name] = network.to_empty(device=device).eval()
            fill(self.theirs[name], generator)
        numbers = torch.Generator().manual_seed(1)
        cells = sizes.cells
        self.x = torch.randn(2, 4, cells, cells, generator=numbers).to(device)
        self.context = torch.randn(2, 77, sizes.text, generator=numbers).to(device)
        self.latent = torch.randn(1, 4, cells, cells, generator=numbers).to(device)
        self.timestep = torch.full((2,), 481.0, device=device)

    def ours(self, task: str) -> nn.Module:
        """Our network with the same weights, in half precision, laid out as `sfumato.load` lays it out on a GPU."""
        from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
        from sfumato.nn.unet import UNet, UNetConfig

        network: nn.Module
        with torch.device("meta"):
            if task == "unet":
                network = UNet(UNetConfig.from_json(self.unet_options))
            else:
                network = Autoencoder(AutoencoderConfig.from_json(self.autoencoder_options))
        halves = {name: value.to(self.dtype) for name, value in self.theirs[task].state_dict().items()}
        network.load_state_dict(halves, assign=True)
        order = autoencoder_order(self.device) if task == "decode" else torch.channels_last
        return network.eval().to(memory_format=order)  # type: ignore[call-overload,no-any-return]

    def call(self, task: str, network: Any, *, theirs: bool, dtype: torch.dtype) -> Step:
        """One step of a network of ours or theirs."""
        x, context, latent = (each.to(dtype) for each in (self.x, self.context, self.latent))
        calls: dict[tuple[str, bool], Callable[[], Tensor]] = {
            ("unet", True): lambda: network(x, self.timestep, context).sample,
            ("unet", False): lambda: network(x, self.timestep, context),
            ("decode", True): lambda: network(latent).sample,
            ("decode", False): lambda: network(latent),
        }
        return calls[task, theirs]


def maker(networks: Networks, task: str, name: str) -> Callable[[], Step]:
    """What makes the contender of a name."""

    def make() -> Step:
        theirs = name.startswith(THEIRS)
        network = deepcopy(networks.theirs[task]).to(networks.dtype) if theirs else networks.ours(task)
        if "," in name and name != FIRST:  # channels last, and so when compiled
            channels_last(network)
        run: Any = network.decode if task == "decode" else network
        if name == "sfumato" and task == "unet" and networks.device.type == "cuda":
            run = Replayed(run)
        if not name.endswith("compiled"):
            return networks.call(task, run, theirs=theirs, dtype=networks.dtype)
        run = torch.compile(run, mode=MODE if networks.device.type == "cuda" else None)
        step = networks.call(task, run, theirs=theirs, dtype=networks.dtype)

        def alone() -> Tensor | None:
            torch.compiler.cudagraph_mark_step_begin()  # its graph does not follow on that of the one before
            return step()

        return alone

    return make


@torch.no_grad()
def drawing(
    sizes: Sizes, device: torch.device, names: tuple[str, ...], operations: Mapping[str, int], budget: Budget
) -> Iterator[Drawn]:
    """Both tasks of some contenders, each against diffusers' float32."""
    networks = Networks(sizes, device)
    for task in TASKS:
        whole = networks.theirs[task]
        reference = networks.call(task, whole.decode if task == "decode" else whole, theirs=True, dtype=torch.float32)()
        assert reference is not None
        reference = reference.clone()
        here = [name for name in names if task == "unet" or name != FIRST]
        taken = take_turns({name: maker(networks, task, name) for name in here}, device, budget)
        error = partial(relative_error, reference)
        errors = {name: error(turns.first) for name, turns in taken.items() if turns.first is not None}
        yield Drawn(task, networks.dtype, taken, errors, operations[task])
        clear(device)


def relative_error(reference: Tensor, found: Tensor) -> float:
    """The norm of the difference over that of the reference."""
    return float((found - reference).double().norm() / reference.double().norm())
