"""Training steps on a device: `sfumato train`'s loop with our UNet and with diffusers', and diffusers' script's loop.

All begin with the same weights and see the same batches: noised latents that are ready on the device, as cached latents
and encoded captions would be. Diffusers' loop is that of its examples/text_to_image/train_text_to_image.py in bfloat16
with its options for an average of the weights, without what reads and encodes pictures and words.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bench.drawing import milliseconds, ratio
from bench.others import LOSS_TOLERANCE
from bench.training import SEED, TOKENS, Size, initial_weights
from bench.turns import Budget, Step, Turns, take_turns

SCRIPT = "diffusers' script"
EAGER = ("sfumato", SCRIPT, "diffusers' UNet in sfumato's loop")
COMPILED = (SCRIPT, "sfumato, compiled", "diffusers' script, compiled")
BATCHES = 4  # that are taken in turn
RATE, BETAS, DECAY, CLIP, AVERAGE = 1e-4, (0.9, 0.999), 1e-2, 1.0, 0.9999  # the script's


def operations(size: Size) -> int:
    """Floating-point operations of a sample forwards and backwards, two for each multiply and add; nothing is updated.

    Of convolutions and matrix products as they are written, attention's included.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from sfumato.nn.unet import UNet, UNetConfig

    with torch.device("meta"), torch.enable_grad():
        network = UNet(UNetConfig.from_json(size.options))
        x = torch.empty(1, 4, size.cells, size.cells)
        with FlopCounterMode(display=False) as counter:
            network(x, torch.empty(1), torch.empty(1, TOKENS, size.options["cross_attention_dim"])).sum().backward()
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class Batch:
    """Noised latents, timesteps, words and the noise to be told."""

    x: Tensor
    timestep: Tensor
    context: Tensor
    goal: Tensor


def batches(size: Size, device: torch.device) -> list[Batch]:
    """The same for everybody: noise at a random level in standard normal latents."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (size.batch, 4, size.cells, size.cells)
    made = []
    for _ in range(BATCHES):
        clean, noise = (torch.randn(shape, generator=generator) for _ in range(2))
        level = torch.rand(size.batch, 1, 1, 1, generator=generator)
        context = torch.randn(size.batch, TOKENS, size.options["cross_attention_dim"], generator=generator)
        noised = (1 - level) ** 0.5 * clean + level**0.5 * noise
        timestep = (level.flatten() * 999).round()
        made.append(Batch(*(each.to(device) for each in (noised, timestep, context, noise))))
    return made


Predict = Callable[[Batch], Tensor]
Weights = Mapping[str, Tensor]


class Fixed:
    """What a recipe is to `sfumato train`: a network that tells noise from ready batches."""

    def __init__(self, network: nn.Module, predict: Predict, made: list[Batch], device: torch.device) -> None:
        self.networks, self.predict, self.made, self.device = {"unet": network}, predict, made, device
        self.last: Tensor | None = None

    def inputs(self, part: Any) -> None:
        return None

    def loss(self, part: Any, inputs: None) -> tuple[Tensor, dict[str, float | Tensor]]:
        batch = self.made[part.step % len(self.made)]
        with torch.autocast(self.device.type, torch.bfloat16):
            output = self.predict(batch).float()
        total = ((output - batch.goal) ** 2).mean((1, 2, 3)).mean()
        self.last = total.detach()
        return total, {"loss": self.last}

    def validate(self) -> dict[str, float]:
        return {}

    def sheet(self) -> Image.Image | None:
        return None

    def export(self, folder: Path) -> None:
        """Nothing is kept."""


def in_our_loop(
    network: nn.Module, predict: Predict, made: list[Batch], size: Size, device: torch.device, folder: Path
) -> Step:
    """A step of `sfumato train`: fused AdamW, clipping, a look whether the gradient is finite, average, journal."""
    from sfumato.train.checkpoint import Progress
    from sfumato.train.config import OptimizerConfig, RunConfig, TrainConfig
    from sfumato.train.journal import Journal
    from sfumato.train.loop import Training
    from sfumato.train.plan import Coming
    from sfumato.train.ranks import Ranks

    config = TrainConfig(
        run=RunConfig(output=str(folder), steps=1_000_000, batch=size.batch, precision="bf16", ema=AVERAGE),
        optimizer=OptimizerConfig(rate=RATE, schedule="constant", warmup=0, betas=BETAS, weight_decay=DECAY, clip=CLIP),
    )
    task = Fixed(network, predict, made, device)
    training, progress = Training(task, config, Ranks(), None), Progress()
    journal = Journal(config, progress, Ranks(), None)
    made_ahead = ((part, task.inputs(part)) for part in Coming(config.run, 0, 0))

    def step() -> Tensor | None:
        nonlocal progress
        progress = training.step(progress, journal, made_ahead)
        return task.last

    return step


def in_their_loop(network: Any, predict: Predict, made: list[Batch], device: torch.device) -> Step:
    """A step of diffusers' script: AdamW, clipping, a rate's schedule, average, and the loss read for its log."""
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, eps=1e-8)
    scheduler = get_scheduler("constant", optimizer=optimizer)
    average = EMAModel(network.parameters(), decay=AVERAGE, model_cls=type(network), model_config=network.config)
    count, told = 0, 0.0

    def step() -> Tensor | None:
        nonlocal count, told
        batch = made[count % len(made)]
        count += 1
        with torch.autocast(device.type, torch.bfloat16):
            output = predict(batch)
        loss = F.mse_loss(output.float(), batch.goal.float(), reduction="mean")
        told += loss.item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        return loss.detach()

    return step


def maker(
    name: str, size: Size, weights: Weights, made: list[Batch], device: torch.device, folder: Path
) -> Callable[[], Step]:
    """What makes the contender of a name."""

    def make() -> Step:
        from diffusers import UNet2DConditionModel

        from sfumato.nn.unet import UNet, UNetConfig
        from sfumato.train.device import channels_last

        theirs = name.startswith("diffusers")
        network: Any
        with torch.device("meta"):
            options = dict(size.options)
            network = UNet2DConditionModel.from_config(options) if theirs else UNet(UNetConfig.from_json(options))
        network.to_empty(device=device).load_state_dict(weights)
        network.train()
        if not name.startswith(SCRIPT):
            channels_last(network)
        run = torch.compile(network) if name.endswith("compiled") else network

        def predict(batch: Batch) -> Tensor:
            told = run(batch.x, batch.timestep, batch.context)
            return told.sample if theirs else told  # type: ignore[no-any-return]

        if name.startswith(SCRIPT):
            return in_their_loop(network, predict, made, device)
        return in_our_loop(network, predict, made, size, device, folder)

    return make


@dataclass(frozen=True)
class Trained:
    """The turns of everybody, and the loss of each after the last step."""

    size: Size
    names: tuple[str, ...]
    taken: Mapping[str, Turns]
    losses: Mapping[str, float]

    def rows(self, per_sample: int, limit: float) -> list[str]:
        """A table; one whose loss differs has no time in it. `limit` is that of a matrix product, in FLOP/s."""
        lines = [
            f"### A training step of {self.size.title}: batch {self.size.batch}, {self.size.cells}x{self.size.cells} "
            "cells, bfloat16 autocast",
            "",
            "| | milliseconds (least - most) | samples/s | speed over diffusers' script | TFLOP/s "
            "| of the matrix product | memory of a step | ready after | last loss |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        right = self.losses.get(SCRIPT, float("nan"))
        for name, turns in self.taken.items():
            if turns.failed:
                lines.append(f"| {name} | {turns.failed} | | | | | | | |")
                continue
            loss = f"{self.losses[name]:.4f}"
            if not abs(self.losses[name] - right) <= LOSS_TOLERANCE * right:
                lines.append(f"| {name} | loss differs: no figure | | | | | | | {loss} |")
                continue
            rate = self.size.batch / turns.median
            speed = rate * per_sample
            lines.append(
                f"| {name} | {milliseconds(turns)} | {rate:.4g} | {ratio(self.taken, SCRIPT, name)} "
                f"| {speed / 1e12:.3g} | {speed / limit:.0%} | {turns.memory / 2**30:.2f} GiB | {turns.ready:.0f} s "
                f"| {loss} |"
            )
        return [*lines, ""]


@torch.enable_grad()
def training(size: Size, device: torch.device, names: tuple[str, ...], budget: Budget, folder: Path) -> Trained:
    """The training steps of some contenders."""
    with torch.device(device):
        weights = initial_weights(size)
    made = batches(size, device)
    steps: dict[str, Step] = {}

    def kept(name: str) -> Callable[[], Step]:
        make = maker(name, size, weights, made, device, folder)

        def making() -> Step:
            steps[name] = make()
            return steps[name]

        return making

    taken = take_turns({name: kept(name) for name in names}, device, budget)
    losses: dict[str, float] = {}
    for name, turns in taken.items():
        last = None if turns.failed else steps[name]()
        if last is not None:
            losses[name] = float(last)
    return Trained(size, names, taken, losses)
