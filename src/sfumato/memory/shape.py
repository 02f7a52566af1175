"""What is drawn, as far as memory depends on it: of a request, before a model is opened. Nothing here imports torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sfumato.request import LATENT_UPSCALERS, PIXEL_UPSCALERS, Request
from sfumato.request.filling import worked_size
from sfumato.request.said import Said
from sfumato.text.composing import parts
from sfumato.text.words import AS_WRITTEN

MOST = 12 * 1024  # bytes for each pixel of a picture, of SD 1.x and XL in float32 with guidance: measured, and doubled


class Usual(Protocol):
    """What a model draws with where a request does not say: a family, or the defaults of a request."""

    @property
    def size(self) -> int: ...

    @property
    def guidance(self) -> float: ...


@dataclass(frozen=True)
class Shape:
    """What is drawn: pixels, pictures at once, whether guidance asks twice, and whether a picture is encoded.

    `seen` is the side in pixels of what the UNet sees at once, where that is a part of the picture; `prompts` are asked
    for each picture together; a `seamless` picture goes through the autoencoder whole; `enlarges` is the width and
    height of what a network enlarges before a second pass.
    """

    width: int
    height: int
    batch: int = 1
    guided: bool = True
    encodes: bool = False
    seen: int | None = None
    prompts: int = 1
    seamless: bool = False
    enlarges: tuple[int, int] | None = None

    @property
    def pixels(self) -> int:
        """Pixels of a picture."""
        return self.width * self.height


def most_prompts(request: Request, said: Mapping[int, Said]) -> int:
    """The prompts that the network is asked together for a picture, at most: of regions, and those that AND joins."""
    if request.dialect != "a1111":
        return 1 + len(request.regions)
    pass_two = request.hires.prompt if request.hires is not None else None
    own = {*request.prompts, *(each.prompt for each in said.values()), *([] if pass_two is None else [pass_two])}
    of_regions = sum(len(parts(each.prompt)) for each in request.regions)
    return max(len(parts(text)) for text in own) + of_regions


def shape_of(
    request: Request, usual: Usual, start: tuple[int, int] | None, said: Mapping[int, Said] = AS_WRITTEN
) -> Shape:
    """What a request draws with a model, the larger of its passes.

    `usual` is what the model draws with by itself, `start` the size of the start picture, `said` are the prompts as
    they were filled in. Raises RequestError for a start picture that needs a size.
    """
    width, height = worked_size(usual.size, request, start)
    guidances = [usual.guidance if request.guidance is None else request.guidance]
    encodes = start is not None
    enlarges = None
    if request.hires is not None:
        enlarges = None if request.hires.upscaler in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS) else (width, height)
        width, height = max((width, height), request.hires.size_for(width, height), key=math.prod)
        guidances += [] if request.hires.guidance is None else [request.hires.guidance]
        encodes = encodes or request.hires.upscaler not in LATENT_UPSCALERS
    return Shape(
        width,
        height,
        batch=min(request.batch or 1, request.total),
        guided=any(guidance != 1 for guidance in guidances),
        encodes=encodes,
        seen=None if request.windows is None else request.windows.filled(usual.size).size,
        prompts=most_prompts(request, said),
        seamless=request.tiling is not None,
        enlarges=enlarges,
    )


def surely_fits(files: int, shape: Shape, free: int, *, half: bool = False) -> bool:
    """Say whether networks of so many bytes on the disk, drawing this, take so little that nothing has to be counted.

    `files` are those of all that is read, `free` what may be taken. Numbers may be twice as wide in memory, and no
    network of these families holds more than `MOST` for each pixel; `half`: they are of 16 bits, in memory too.
    """
    needed = 2 * files + MOST * shape.pixels * shape.batch * shape.prompts
    return (needed // 2 if half else needed) + (1 << 30) <= free
