"""What a running job tells: the events of `stream`, in the order loading, then progress and previews, then pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sfumato.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Loading:
    """A model is being loaded; comes before the loading starts."""

    model: str


@dataclass(frozen=True)
class Progress:
    """A step is done: `step` of `steps`, from 1, for the pictures of these numbers.

    `sigma` is the noise level reached, `denoised` [B, C, h, w] the estimate of the clean latents; 0 and None where the
    pictures are drawn by another process.
    """

    step: int
    steps: int
    sigma: float
    denoised: "Tensor | None"
    pictures: tuple[int, ...]


@dataclass(frozen=True)
class Preview:
    """What the pictures of these numbers look like after a step, roughly, at one pixel per latent cell."""

    step: int
    steps: int
    images: "tuple[Image, ...]"
    pictures: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """Picture `index` of the request is done. `request` is the resolved one; the picture used `seed`.

    `halted_at` is the step at which it was called done before its last one, or None.
    """

    index: int
    seed: int
    picture: "Image"
    request: Request
    halted_at: int | None = None


Event = Loading | Progress | Preview | Finished

Halt = Callable[[], Literal["skip", "stop"] | None]
"""Asked after every step: `skip` calls the pictures that are drawn done as they are, `stop` the whole request."""
