"""The recipe of the reader: renders made worse in many ways, and the truth about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sfumato.scenes.reader import CELLS, GRID_NAMES, PIXELS, Heads, Reader, cell_centres, numbers, save_reader
from sfumato.scenes.render import render
from sfumato.scenes.scene import Scene, Split, Thing, scene
from sfumato.scenes.vocabulary import STYLES
from sfumato.train.config import TrainConfig, build
from sfumato.train.device import autocast, pick_device
from sfumato.train.plan import Pass, sample_indices

WORSE = 1  # purpose of the keyed generators
REACH = 0.07  # of a picture width: the standard deviation of presence around a thing's centre
APART = 0.16  # of a picture width: the least distance of two centres in the drawn world, in x or in y


@dataclass(frozen=True, kw_only=True)
class ReaderLoss:
    """How much each answer weighs, and how often pictures are made worse."""

    presence: float = 1.0
    offset: float = 0.5
    kind: float = 1.0
    colour: float = 1.0
    size: float = 0.5
    style: float = 1.0
    background: float = 0.3
    worse: float = 0.7  # share of the pictures that are blurred, noised and tinted


@dataclass(frozen=True)
class Truth:
    """What `Heads` should say: presence is 0..1, the rest of a cell is about the thing nearest to it."""

    presence: Tensor
    offset: Tensor
    kind: Tensor
    colour: Tensor
    size: Tensor
    style: Tensor
    background: Tensor


def reader_scene(seed: int, index: int, counts: tuple[float, ...]) -> Scene:
    """A scene to learn reading from: any pair of kind and colour, every style as often, half of them at free places.

    A generator's faults should not surprise the reader, so it sees what no caption of the drawn world would say.
    """
    rng = np.random.default_rng([seed, index, 7])
    split: Split = "unseen_pairs" if rng.random() < 0.08 else "train"
    drawn = replace(scene(seed, index, split, counts), style=str(rng.choice(list(STYLES))))
    if rng.random() < 0.04:
        return replace(drawn, things=())
    if rng.random() < 0.5:
        return drawn
    return replace(drawn, things=_moved(drawn.things, rng), horizon=float(rng.uniform(0.5, 0.74)))


def _moved(things: tuple[Thing, ...], rng: np.random.Generator) -> tuple[Thing, ...]:
    """The things at random places, as far apart as in the drawn world."""
    placed: list[Thing] = []
    for thing in things:
        while True:
            x, y = rng.uniform(0.13, 0.87, 2)
            if all(max(abs(x - other.x), abs(y - other.y)) >= APART for other in placed):
                break
        placed.append(replace(thing, x=float(x), y=float(y)))
    return tuple(placed)


def truth(scenes: Sequence[Scene], device: torch.device | str = "cpu") -> Truth:
    """What the heads should say of the scenes' pictures."""
    centres = cell_centres("cpu")  # [h, w, 2]
    shape = (len(scenes), CELLS, CELLS)
    presence, offset = torch.zeros(shape), torch.zeros(*shape, 2)
    names = {head: torch.zeros(shape, dtype=torch.int64) for head in GRID_NAMES}
    for index, drawn in enumerate(scenes):
        if not drawn.things:
            continue
        away = torch.tensor([[t.x, t.y] for t in drawn.things]) - centres[:, :, None]  # [h, w, things, 2]
        distance, owner = away.norm(dim=-1).min(dim=-1)
        presence[index] = (-0.5 * (distance / REACH) ** 2).exp()
        offset[index] = away.gather(2, owner[..., None, None].expand(-1, -1, 1, 2))[:, :, 0] * CELLS
        for head, table in names.items():
            words = [drawn.style if head == "style" else getattr(thing, head) for thing in drawn.things]
            table[index] = torch.tensor(numbers(head, words))[owner]
    return Truth(
        presence=presence.to(device),
        offset=offset.to(device),
        **{head: table.to(device) for head, table in names.items()},
        background=torch.tensor(numbers("background", [s.background for s in scenes]), device=device),
    )


def reading_loss(heads: Heads, true: Truth, weights: ReaderLoss) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Weighted sum of the heads' losses, and each of them. Only cells near a thing learn where and what it is."""
    near = true.presence * (true.presence > 0.3)
    total = near.sum().clamp(min=1e-6)

    def over_things(loss: Tensor) -> Tensor:
        return (loss * near).sum() / total

    def name(head: Tensor, answer: Tensor) -> Tensor:
        return F.cross_entropy(head.movedim(-1, 1), answer, reduction="none")

    parts = {
        "presence": 4 * F.binary_cross_entropy_with_logits(heads.presence, true.presence),
        "offset": over_things((heads.offset - true.offset).abs().sum(dim=-1)),
        "kind": over_things(name(heads.kind, true.kind)),
        "colour": over_things(name(heads.colour, true.colour)),
        "size": over_things(name(heads.size, true.size)),
        "style": over_things(name(heads.style, true.style)),
        "background": F.cross_entropy(heads.background, true.background),
    }
    loss = torch.stack([getattr(weights, key) * value for key, value in parts.items()]).sum()
    return loss, {key: value.detach() for key, value in parts.items()}


def worsen(pictures: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Pictures [B, 3, H, W] in [-1, 1] as an autoencoder or a generator would spoil them: `share` of them.

    A smooth warp of some hundredths, one of two blurs, smooth and flat errors of colour, grain, and contrast.
    """
    count, _, height, width = pictures.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1, 1).uniform_(low, high, generator=draw)

    def field(channels: int, cells: int) -> Tensor:
        coarse = torch.randn(count, channels, cells, cells, generator=draw)
        return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)

    warp = field(2, 6) * uniform(0, 0.016)  # in [-1, 1] coordinates: up to 1 % of the width
    ticks = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    where = torch.stack([x, y], dim=-1) * uniform(0.94, 1.06) + warp.movedim(1, -1)
    spoiled = F.grid_sample(pictures, where, padding_mode="border", align_corners=False)
    spoiled = _blurred(spoiled, draw)
    spoiled = spoiled * uniform(0.88, 1.08) + uniform(-0.06, 0.06)
    spoiled = spoiled + torch.randn(count, 3, 1, 1, generator=draw) * uniform(0, 0.05)
    spoiled = spoiled + field(3, 8) * uniform(0, 0.09)
    spoiled = spoiled + torch.randn(pictures.shape, generator=draw) * uniform(0, 0.08)
    chosen = torch.rand(count, 1, 1, 1, generator=draw) < share
    return torch.where(chosen, spoiled.clamp(-1, 1), pictures)


def _blurred(pictures: Tensor, draw: torch.Generator) -> Tensor:
    """Each picture as it is, down and up again by 2 or 3, or averaged with its neighbours, at random."""
    size = pictures.shape[-2:]
    versions = [pictures, F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)]
    for side in (PIXELS // 2, PIXELS // 3):
        small = F.interpolate(pictures, size=(side, side), mode="area")
        versions.append(F.interpolate(small, size=size, mode="bilinear", align_corners=False))
    pick = torch.multinomial(torch.tensor([0.3, 0.3, 0.28, 0.12]), len(pictures), replacement=True, generator=draw)
    return torch.stack(versions)[pick, torch.arange(len(pictures))]


class ReaderTask:
    """Trains a `Reader` on worsened renders; the export is one file, reader.safetensors."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.device = config, pick_device(config.run)
        self.weights = build(ReaderLoss, config.loss, "loss")
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(config.run.seed)  # type: ignore[attr-defined]
            self.reader = Reader().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._drawn: dict[int, tuple[Scene, Tensor]] = {}

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"reader": self.reader}

    def inputs(self, part: Pass) -> tuple[list[Scene], Tensor]:
        """The scenes of a pass and their pictures, some of them worsened."""
        data = self.config.data
        scenes, renders = self._renders(sample_indices(data.seed, part.numbers, data.pool))
        draws = zip(torch.split(renders, part.size), part.generators(WORSE), strict=True)
        return scenes, torch.cat([worsen(renders, self.weights.worse, draw) for renders, draw in draws])

    def loss(self, part: Pass, inputs: tuple[list[Scene], Tensor]) -> tuple[Tensor, dict[str, float | Tensor]]:
        scenes, pictures = inputs
        pictures = pictures.to(self.device, memory_format=torch.channels_last)
        with autocast(self.config.run, self.device):
            heads = self.reader(pictures)
        return reading_loss(heads, truth(scenes, self.device), self.weights)

    def _renders(self, indices: list[int]) -> tuple[list[Scene], Tensor]:
        """Scenes and their pictures [B, 3, 64, 64] in steps of 1/255; those of a finite pool are drawn only once."""
        data = self.config.data
        new = [index for index in indices if index not in self._drawn]
        scenes = [reader_scene(data.seed, index, data.counts) for index in new]
        drawn = dict(self._drawn)
        if new:
            levels = (render(scenes, PIXELS) + 1).mul_(127.5).round_().to(torch.uint8)
            drawn |= {index: (s, picture) for index, s, picture in zip(new, scenes, levels, strict=True)}
            if data.pool:
                self._drawn = drawn
        pictures = torch.stack([drawn[index][1] for index in indices])
        return [drawn[index][0] for index in indices], pictures.float() / 127.5 - 1

    def validate(self) -> dict[str, float]:
        """Nothing: the reader is judged on the pictures that it is made for."""
        return {}

    def sheet(self) -> Image.Image | None:
        """Nothing to look at: the reader draws no pictures."""
        return None

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_reader(self.reader, folder / "reader.safetensors")
