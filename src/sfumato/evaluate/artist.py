"""Who draws the pictures that are measured: the model, as four verbs that an evaluation needs and no more."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from PIL import Image

from sfumato.errors import RequestError
from sfumato.events import Finished
from sfumato.generation import stream
from sfumato.guides import masking
from sfumato.images import to_levels, to_pictures, to_pixels
from sfumato.model import Model
from sfumato.operations import decode, encode_image
from sfumato.request import Request

BATCH = 32  # pictures through the networks together
SIDES = (64, 256)  # pixels: readers look at 64, and a picture of the drawn world has nothing that needs more than 256

OWN = ("prompt", "count", "image", "mask", "strength", "mask_blur")
"""What a request has that is not the same for every picture."""


class Artist(Protocol):
    """Draws square pictures of `side` pixels. Picture `number` of a suite always uses the noise of `seed` + number."""

    @property
    def name(self) -> str: ...

    @property
    def side(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def settings(self) -> dict[str, Any]:
        """What the pictures are drawn with, for the report."""
        ...

    @property
    def clock(self) -> "Clock":
        """How long it has drawn."""
        ...

    def draw(self, prompts: Sequence[str], told: Callable[[], None]) -> list[Image.Image]:
        """A picture of each prompt, numbered from 0; calls `told` after each."""
        ...

    def redraw(self, picture: Image.Image, prompt: str, number: int, strength: float) -> Image.Image:
        """The picture again, with so much of it changed as `strength` says."""
        ...

    def repaint(self, picture: Image.Image, mask: Image.Image, prompt: str, number: int) -> Image.Image:
        """The picture with what the prompt says where the mask is white."""
        ...

    def through(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """The pictures encoded and decoded."""
        ...


@dataclass
class Clock:
    """How many pictures were drawn, the seconds that it took, and the resolved request of the last ones."""

    pictures: int = 0
    seconds: float = 0.0
    last: Request | None = None

    @contextmanager
    def running(self, pictures: int) -> Iterator[None]:
        """Counts the time of the block and these pictures."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        self.pictures += pictures


@dataclass(frozen=True)
class ModelArtist:
    """A model, with the fields of a request that hold for every picture. Picture i uses the request's seed + i."""

    model: Model
    asked: Request
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def of(cls, model: Model, settings: Request | None = None) -> "ModelArtist":
        """The model with settings whose prompt is ignored: a fixed seed and a quick batch, unless they say otherwise.

        Raises RequestError for a model whose pictures are not of a size that the drawn world is read at, and for a
        masking that it has not.
        """
        asked = settings or Request()
        width, height = asked.width or model.family.size, asked.height or model.family.size
        if width != height or not SIDES[0] <= width <= SIDES[1] or width % model.stride:
            raise RequestError(
                f"{model.name} draws {width}x{height} pixels; the drawn world is square, of {SIDES[0]} to {SIDES[1]} "
                f"pixels a side in steps of {model.stride}. Evaluate a model that was trained on it.",
                "model",
            )
        if asked.masking is not None:
            masking(model, asked)  # what cannot be is told before anything is drawn
        batch = asked.batch or (1 if asked.strict else BATCH)
        return cls(model, replace(asked, seed=asked.seed or 0, batch=batch, count=1, width=width, height=height))

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def side(self) -> int:
        return self.asked.width or self.model.family.size

    @property
    def seed(self) -> int:
        return self.asked.seed or 0

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved settings without the prompts."""
        last = replace(self.clock.last or self.asked, masking=self.asked.masking)
        return {key: value for key, value in last.to_dict().items() if key not in OWN}

    def draw(self, prompts: Sequence[str], told: Callable[[], None]) -> list[Image.Image]:
        return self._made(replace(self.asked, prompt=tuple(prompts), masking=None), told)

    def redraw(self, picture: Image.Image, prompt: str, number: int, strength: float) -> Image.Image:
        return self._made(replace(self._numbered(number, prompt), strength=strength), image=picture)[0]

    def repaint(self, picture: Image.Image, mask: Image.Image, prompt: str, number: int) -> Image.Image:
        masked = replace(self._numbered(number, prompt), masking=self.asked.masking)
        return self._made(masked, image=picture, mask=mask)[0]

    def _numbered(self, number: int, prompt: str) -> Request:
        return replace(self.asked, prompt=prompt, seed=self.seed + number, masking=None)

    def _made(
        self,
        request: Request,
        told: Callable[[], None] | None = None,
        *,
        image: Image.Image | None = None,
        mask: Image.Image | None = None,
    ) -> list[Image.Image]:
        """The pictures of a request, in order."""
        finished: list[Finished] = []
        with self.clock.running(request.total):
            for event in stream(self.model, request, image=image, mask=mask, metadata=False):
                if isinstance(event, Finished):
                    finished.append(event)
                    if told:
                        told()
        if image is None or self.clock.last is None:
            self.clock.last = finished[0].request
        return [event.picture for event in sorted(finished, key=lambda event: event.index)]

    def through(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        batch = self.asked.batch or BATCH
        return [
            made
            for at in range(0, len(pictures), batch)
            for made in to_pictures(
                to_levels(decode(self.model, encode_image(self.model, to_pixels(pictures[at : at + batch])).mean))
            )
        ]
