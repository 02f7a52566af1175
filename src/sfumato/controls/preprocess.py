"""What a control network sees of a picture, by name: the preprocessors in one table. Nothing here imports torch."""

from collections.abc import Callable

from PIL import Image

from sfumato.controls import edges, tones
from sfumato.controls.tones import Options
from sfumato.request import checked_options

Preprocess = Callable[[Image.Image, Options], Image.Image]
"""(RGB picture, the options that the request's table has for it) -> RGB picture of the same size."""

MAKERS: dict[str, Preprocess] = {
    "none": lambda picture, options: picture,
    "canny": edges.canny,
    "scribble": edges.scribble,
    "soft_edge": edges.soft_edge,
    "blur": tones.blur,
    "tile": tones.tile,
    "colour": tones.colour,
    "shuffle": tones.shuffle,
    "luminance": tones.luminance,
    "threshold": tones.threshold,
    "binary": tones.binary,
    "invert": tones.invert,
    "inpaint": lambda picture, options: picture,  # what is hidden is no colour that a picture has
}


def preprocess(picture: Image.Image, name: str, options: Options) -> Image.Image:
    """The picture as a control network sees it; one for inpainting is as it is. Raises RequestError for a name."""
    return MAKERS[name](picture, checked_options(name, options))
