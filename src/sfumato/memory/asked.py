"""What a request asks of the memory: the size of what is drawn, and of the files that are read for it."""

import math
from collections.abc import Mapping

from sfumato.images import Pictures, PictureSource, named_picture, open_picture
from sfumato.memory.held import Shape
from sfumato.model import Family
from sfumato.request import LATENT_UPSCALERS, Request
from sfumato.request.filling import worked_size
from sfumato.request.said import Said
from sfumato.text.composing import parts
from sfumato.text.words import AS_WRITTEN
from sfumato.upscaling import FILTERS
from sfumato.weights.opened import Opened


def size_of(opened: Opened) -> int:
    """The bytes of an opened model's files."""
    files = {path for component in opened.components.values() for path in component.tensors.paths}
    return sum(path.stat().st_size for path in files)


def picture_size(request: Request, image: PictureSource | None, pictures: Pictures) -> tuple[int, int] | None:
    """The width and height of the start picture, handed over or named; None without. Errors are those of `run`."""
    if image is None and request.image is None:
        return None
    return open_picture(named_picture(request.image, "image", pictures) if image is None else image).size


def most_prompts(request: Request, said: Mapping[int, Said]) -> int:
    """The prompts that the network is asked together for a picture, at most: of regions, and those that AND joins."""
    if request.dialect != "a1111":
        return 1 + len(request.regions)
    pass_two = request.hires.prompt if request.hires is not None else None
    own = {*request.prompts, *(each.prompt for each in said.values()), *([] if pass_two is None else [pass_two])}
    of_regions = sum(len(parts(each.prompt)) for each in request.regions)
    return max(len(parts(text)) for text in own) + of_regions


def shape_of(
    request: Request, family: Family, start: tuple[int, int] | None, said: Mapping[int, Said] = AS_WRITTEN
) -> Shape:
    """What a request draws with a model of a family, the larger of its passes; `start` is its start picture's size.

    `said` are the prompts as they were filled in. Raises RequestError for a start picture that needs a size.
    """
    width, height = worked_size(family.size, request, start)
    guidances = [family.guidance if request.guidance is None else request.guidance]
    encodes = start is not None
    enlarges = None
    if request.hires is not None:
        enlarges = None if request.hires.upscaler in (*LATENT_UPSCALERS, *FILTERS) else (width, height)
        width, height = max((width, height), request.hires.size_for(width, height), key=math.prod)
        guidances += [] if request.hires.guidance is None else [request.hires.guidance]
        encodes = encodes or request.hires.upscaler not in LATENT_UPSCALERS
    return Shape(
        width,
        height,
        batch=min(request.batch or 1, request.total),
        guided=any(guidance != 1 for guidance in guidances),
        encodes=encodes,
        seen=None if request.windows is None else request.windows.filled(family.size).size,
        prompts=most_prompts(request, said),
        seamless=request.tiling is not None,
        enlarges=enlarges,
    )
