"""A small network that reads a picture of the drawn world: which things lie where, on what, in which style.

It is trained only on renders, never on what a generator draws, so that its word on a generator is independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from itertools import starmap
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sfumato.errors import ModelFileError, WeightsError, reason
from sfumato.scenes.scene import place_at
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, SIZES, STYLES

PIXELS = 64  # the side that pictures are averaged down to
CELLS = 16  # of the grid that the heads speak of; things are at least 2.5 cells apart
MOST_THINGS = 3
NEAR = 0.13  # of a picture width: closer peaks are one thing. The drawn world keeps 0.16 between centres
NAMES = {
    "kind": tuple(KINDS),
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "background": tuple(BACKGROUNDS),
    "style": tuple(STYLES),
}
"""The words that each head chooses from, in the order of its outputs."""

GRID_NAMES = ("kind", "colour", "size", "style")  # the heads that speak cell by cell


@dataclass(frozen=True)
class ReadThing:
    """One thing seen in a picture: its centre (x right, y down) in picture widths, and how sure the reader is, 0..1."""

    kind: str
    colour: str
    size: str
    x: float
    y: float
    sure: float = 1.0

    @property
    def place(self) -> str:
        """The name of the place, one of nine, whose cell holds the centre."""
        return place_at(self.x, self.y)


@dataclass(frozen=True)
class Reading:
    """What the reader sees in one picture; the surest thing comes first."""

    things: tuple[ReadThing, ...]
    background: str
    style: str


@dataclass(frozen=True)
class Heads:
    """The network's answers before any decision.

    presence [B, h, w] are logits of a thing's centre being near the cell; offset [B, h, w, 2] is from the cell's centre
    to the thing's, (x, y) in cells; kind, colour, size and style [B, h, w, names] and background [B, names] are logits.
    """

    presence: Tensor
    offset: Tensor
    kind: Tensor
    colour: Tensor
    size: Tensor
    style: Tensor
    background: Tensor


class _Block(nn.Module):
    """A residual pair of 3x3 convolutions, the first one dilated so that a cell sees the whole of a large thing."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        return x + h


class Reader(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] -> `Heads` over a grid of 16 x 16 cells. Half a million parameters."""

    def __init__(self) -> None:
        super().__init__()
        fine, coarse = 32, 64
        self.stem = nn.Conv2d(
            12, fine, 3, padding=1
        )  # of 2 x 2 pixels laid side by side: all detail, a quarter of the cells
        self.block = _Block(fine, 1)
        self.down = nn.Conv2d(fine, coarse, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(starmap(_Block, [(coarse, 1), (coarse, 2), (coarse, 4), (coarse, 2)]))
        self.norm = nn.GroupNorm(8, coarse)
        self.grid = nn.Conv2d(coarse, 3 + sum(len(NAMES[name]) for name in GRID_NAMES), 1)
        self.whole = nn.Sequential(nn.Linear(2 * coarse, coarse), nn.ReLU(), nn.Linear(coarse, len(BACKGROUNDS)))

    def features(self, pixels: Tensor) -> Tensor:
        """What the heads are given: [B, C, cells, cells], not negative."""
        x = F.interpolate(pixels, size=(PIXELS, PIXELS), mode="area") if pixels.shape[-1] != PIXELS else pixels
        x = self.down(self.block(self.stem(F.pixel_unshuffle(x, 2))))
        for block in self.blocks:
            x = block(x)
        return F.relu(self.norm(x))

    def forward(self, pixels: Tensor) -> Heads:
        x = self.features(pixels)
        cells = self.grid(x).float().permute(0, 2, 3, 1)
        presence, offset, *names = cells.split([1, 2, *(len(NAMES[name]) for name in GRID_NAMES)], dim=-1)
        background = self.whole(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)).float()
        return Heads(presence[..., 0], offset, **dict(zip(GRID_NAMES, names, strict=True)), background=background)


@torch.no_grad()
def embed(reader: Reader, pixels: Tensor) -> Tensor:
    """What the reader makes of whole pictures before it names anything, [B, 128]: mean and maximum of its features."""
    x = reader.features(pixels.float())
    return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)


@torch.no_grad()
def read(reader: Reader, pixels: Tensor, threshold: float = 0.35) -> list[Reading]:
    """What is in each picture of [B, 3, H, W] in [-1, 1]: at most three things, those surer than `threshold`."""
    heads = reader(pixels.float())
    presence = heads.presence.sigmoid()
    styles = torch.einsum("bhw,bhwn->bn", presence, heads.style.log_softmax(dim=-1)).argmax(dim=-1).tolist()
    backgrounds = heads.background.argmax(dim=-1).tolist()
    return [
        Reading(_things(heads, index, threshold), NAMES["background"][background], NAMES["style"][style])
        for index, (background, style) in enumerate(zip(backgrounds, styles, strict=True))
    ]


def _things(heads: Heads, index: int, threshold: float) -> tuple[ReadThing, ...]:
    """The peaks of presence, surest first; around each, the cells vote on where and what it is."""
    presence = heads.presence[index].sigmoid().flatten()  # [cells]
    centres = (cell_centres(presence.device) + heads.offset[index] / CELLS).reshape(-1, 2)  # [cells, (x, y)]
    free = presence.clone()
    found: list[ReadThing] = []
    while len(found) < MOST_THINGS:
        peak = int(free.argmax())
        sure = float(free[peak])
        if sure < threshold:
            break
        near = (centres - centres[peak]).norm(dim=-1) < NEAR
        votes = presence * near
        x, y = ((votes[:, None] * centres).sum(dim=0) / votes.sum()).tolist()
        names = {
            head: NAMES[head][int((votes[:, None] * logits[index].flatten(0, 1).log_softmax(-1)).sum(dim=0).argmax())]
            for head, logits in (("kind", heads.kind), ("colour", heads.colour), ("size", heads.size))
        }
        found.append(ReadThing(**names, x=x, y=y, sure=sure))
        free[near] = 0
    return tuple(found)


def cell_centres(device: torch.device | str) -> Tensor:
    """Centres (x, y) of the grid's cells in picture widths, [h, w, 2]."""
    middle = (torch.arange(CELLS, device=device) + 0.5) / CELLS
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([x, y], dim=-1)


def save_reader(reader: Reader, path: Path) -> None:
    """Writes the weights in float16 with the words that they speak of."""
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().half().contiguous() for key, value in reader.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"} | _words())


def load_reader(path: Path) -> Reader:
    """The reader in a file, in float32 for inference.

    Raises ModelFileError for an unreadable file, and WeightsError for one that speaks of other words.
    """
    reader = Reader()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path} cannot be read as a reader's weights: {reason(error)}") from error
    other = [name for name, words in _words().items() if metadata.get(name) != words]
    expected = {key: value.shape for key, value in reader.state_dict().items()}
    if other or {key: value.shape for key, value in tensors.items()} != expected:
        raise WeightsError(
            f"{path} is not a reader of this drawn world ({', '.join(other) or 'other tensors'} differ); "
            "train one with `sfumato train reader configs/embedded/reader.toml`."
        )
    reader.load_state_dict(tensors)
    return reader.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def embedded_reader() -> Reader:
    """The reader that ships with the package; the same object every time, so nobody may train it."""
    with as_file(files("sfumato") / "embedded" / "reader.safetensors") as path:
        return load_reader(path)


def _words() -> dict[str, str]:
    return {name: " ".join(words) for name, words in NAMES.items()}


def numbers(head: str, words: Sequence[str]) -> list[int]:
    """The outputs of a head that stand for the given words."""
    return [NAMES[head].index(word) for word in words]
