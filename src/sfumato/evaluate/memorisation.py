"""Whether pictures are copies: how near the nearest training scene is, against what is usual for new ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato.errors import RequestError
from sfumato.evaluate.readings import CHUNK, rendered
from sfumato.images import to_pixels
from sfumato.scenes.render import render
from sfumato.scenes.scene import Scene, scene

SIDE = 16  # pixels that pictures are averaged down to: layout and colours stay, texture goes
MOST = 1_000_000  # training scenes that can be looked through
NEAREST = 0.01  # the share of held-out renders that are nearer than what counts as suspiciously near


@dataclass(frozen=True)
class Training:
    """The scenes to look among: the first `scenes` of the sequence that training draws from (its `data` section)."""

    scenes: int = 5000
    seed: int = 33  # configs/embedded/unet.toml
    counts: tuple[float, ...] = (0.7, 0.3)

    def scene(self, index: int) -> Scene:
        """Training scene `index`."""
        return scene(self.seed, index, "train", self.counts)


def training_of(seed: int | None = None, scenes: int | None = None) -> Training:
    """The default, or another seed or number of scenes. Raises RequestError for numbers out of range."""
    for name, value, low, high in (("training_seed", seed, 0, 2**63), ("training_scenes", scenes, 1, MOST)):
        if value is not None and not low <= value <= high:
            raise RequestError(f"{name} is {value}; it must be a whole number from {low} to {high}", name)
    found = Training()
    return replace(found, seed=found.seed if seed is None else seed, scenes=scenes or found.scenes)


@dataclass(frozen=True)
class Neighbour:
    """A drawn picture, the number of the training scene whose render is nearest, and how far that is."""

    picture: Image.Image
    scene: int
    distance: float


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest of `training` scenes: root mean squares over pixels in [-1, 1] and channels.

    `drawn`, `renders` (of held-out scenes) and `through` (those encoded and decoded, so as soft as what a model draws)
    are medians. `suspicious` is the share of drawn pictures that are nearer than all but `NEAREST` of `through`; by
    chance it is `NEAREST`. `nearest` are the closest pairs, the closest first.
    """

    training: Training
    pictures: int
    drawn: float
    renders: float
    through: float
    suspicious: float
    nearest: tuple[Neighbour, ...] = field(default=(), repr=False)

    @property
    def ratio(self) -> float:
        """Of the medians of drawn pictures and of held-out renders as soft as they: 1 is usual, near 0 is copied."""
        return self.drawn / self.through if self.through else float("nan")


def memorised(
    drawn: Sequence[Image.Image],
    renders: Sequence[Image.Image],
    through: Sequence[Image.Image],
    training: Training,
    pairs: int = 24,
) -> Memorisation:
    """How near the pictures are to training scenes, beside held-out renders and those after the autoencoder."""
    known = torch.cat(
        [
            _small(render([training.scene(i) for i in range(at, min(at + CHUNK, training.scenes))], 4 * SIDE))
            for at in range(0, training.scenes, CHUNK)
        ]
    )
    distances, numbers = nearest(_pictures(drawn), known)
    plain, soft = (nearest(_pictures(each), known)[0] for each in (renders, through))
    first = distances.argsort()[:pairs].tolist()
    return Memorisation(
        training,
        len(drawn),
        float(distances.median()),
        float(plain.median()),
        float(soft.median()),
        float((distances < soft.quantile(NEAREST)).float().mean()),
        tuple(Neighbour(drawn[i], int(numbers[i]), float(distances[i])) for i in first),
    )


def nearest(pictures: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of each row of [N, D] to the nearest of [M, D], root mean squares over D, and that one's number."""
    exact = torch.cdist(pictures, known, compute_mode="donot_use_mm_for_euclid_dist")  # a copy is at 0, not nearly so
    found = (exact / known.shape[1] ** 0.5).min(dim=1)
    return found.values, found.indices


def neighbour_render(found: Memorisation, neighbour: Neighbour) -> Image.Image:
    """The training scene of a pair, as large as its picture."""
    return rendered([found.training.scene(neighbour.scene)], neighbour.picture.width)[0]


def _pictures(pictures: Sequence[Image.Image]) -> Tensor:
    return torch.cat([_small(to_pixels(pictures[at : at + CHUNK])) for at in range(0, len(pictures), CHUNK)])


def _small(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] averaged down, [B, 3 * SIDE * SIDE]."""
    return F.interpolate(pixels, size=(SIDE, SIDE), mode="area").flatten(1)
