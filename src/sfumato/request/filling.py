"""What a request leaves open and its model decides, filled in: without the model itself, and so without torch."""

import secrets
from dataclasses import dataclass, replace

from sfumato.errors import RequestError
from sfumato.request.pictures import Variation
from sfumato.request.request import Request

DEFAULT_STRENGTH = 0.8  # of img2img; the contract's example
DEFAULT_IMAGE_GUIDANCE = 1.5  # of models that follow instructions, Brooks et al. 2022
DEFAULT_PADDING = 32  # pixels around what is masked; A1111's
LARGEST_UNASKED = 16  # times the model's own area: a start picture above that needs a size in the request
SEED_BITS = 32  # of a seed that is drawn: short enough to be typed


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a model draws with: its name, the side of its square pictures, steps, guidance, the name of its sampling.

    `instructed` models see the start picture, and begin with noise all the same.
    """

    name: str
    size: int
    steps: int
    guidance: float
    sampler: str | None
    instructed: bool = False


def fill(request: Request, defaults: Defaults, picture_size: tuple[int, int] | None = None) -> Request:
    """The request with every None replaced by what suits the model; filling it again changes nothing.

    `picture_size` is the start picture's: the size of a request that names none. `sampler` and `spacing` stay None
    where the model's own sampling has no name. Raises RequestError for a start picture that needs a size.
    """
    width, height = worked_size(defaults.size, request, picture_size)
    strength = request.strength
    if request.image is not None and strength is None:  # at 1 it would not matter what is under the mask
        redraws = request.mask is None or request.masked_content is not None
        strength = DEFAULT_STRENGTH if redraws and not defaults.instructed else 1.0
    seen = DEFAULT_IMAGE_GUIDANCE if defaults.instructed else None  # how much it counts
    return replace(
        request,
        model=request.model or defaults.name,
        seed=draw_seed() if request.seed is None else request.seed,
        steps=request.steps or defaults.steps,
        guidance=defaults.guidance if request.guidance is None else request.guidance,
        image_guidance=seen if request.image_guidance is None else request.image_guidance,
        guidance_rescale=request.guidance_rescale or 0.0,
        guidance_interval=request.guidance_interval or (0.0, 1.0),
        sampler=request.sampler or defaults.sampler,
        width=width,
        height=height,
        batch=request.batch or 1,
        clip_skip=request.clip_skip or 0,
        strength=strength,
        mask_blur=(request.mask_blur or 0.0) if request.mask is not None else None,
        padding=(DEFAULT_PADDING if request.padding is None else request.padding) if request.masked_only else None,
        windows=request.windows and request.windows.filled(defaults.size),
        variation=_seeded(request.variation),
    )


def _seeded(variation: Variation | None) -> Variation | None:
    """The variation with a seed, drawn if it has none."""
    if variation is None or variation.seed is not None:
        return variation
    return replace(variation, seed=draw_seed())


def draw_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbits(SEED_BITS)


def worked_size(side: int, request: Request, picture_size: tuple[int, int] | None) -> tuple[int, int]:
    """The size that is worked at: as asked; else the start picture's, whose shape is kept where one side is asked.

    What is masked is worked on alone at the model's own size, `side`. Raises RequestError.
    """
    if picture_size is None or request.masked_only:
        return request.width or side, request.height or side
    width, height = picture_size
    if request.outpaint is not None:
        width, height = request.outpaint.grown(width, height)
        for name, asked, side in (("width", request.width, width), ("height", request.height, height)):
            if asked not in (None, side):
                raise RequestError(
                    f"{name} is {asked} but outpaint makes the picture {width}x{height}; leave it out, or scale the "
                    "picture first",
                    name,
                )
    if request.width is not None or request.height is not None:
        wide = request.width or round(width * (request.height or 0) / height)
        return wide, request.height or round(height * wide / width)
    if width * height > LARGEST_UNASKED * side**2:
        raise RequestError(
            f"the start picture is {width}x{height} and the model works at about {side}x{side}; ask for a size "
            "(width and height) that it should be scaled to, or for its own",
            "width",
        )
    return width, height
