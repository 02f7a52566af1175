"""Any picture file to upright pixels of eight bits: what is read, and what becomes of colours and of transparency.

The rules for a start image, whatever it is:
- PNG, JPEG or WebP, at most 16384 pixels a side and 8192 x 8192 in all; only the first frame of an animation;
- turned upright as its EXIF orientation says; colours taken to sRGB when it carries another profile that works;
- transparent parts lie on white; 16 bits a channel are rounded to 8; CMYK, palette, grey and 1-bit become RGB.

A mask follows the same rules, but becomes grey, and its transparent parts are black: nothing is repainted there.
Nothing here imports torch: a server reads what strangers send in a process that knows nothing else.
"""

import io
import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from sfumato.errors import PictureError, RequestError, reason

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_SIDE = 16_384  # pixels; what JPEG and WebP hold, about
MAX_PIXELS = 8192 * 8192  # the largest picture that a request can make can also be read

PictureSource = str | os.PathLike[str] | bytes | Image.Image

Pictures = Mapping[str, PictureSource]
"""Pictures that are handed over beside a request, by the text that names them in it, such as `sha256:...`."""

NO_PICTURES: Pictures = MappingProxyType({})


def named_picture(name: str | None, field: str, pictures: Pictures) -> PictureSource:
    """The picture of a name in a request: one that was handed over, or the path itself.

    Raises RequestError for a digest of which no picture was handed over.
    """
    if name is not None and name in pictures:
        return pictures[name]
    if name is None or name.startswith("sha256:"):
        raise RequestError(f"{field} is {name}, a picture that must be handed over with the request", field)
    return name


def open_picture(source: PictureSource, *, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The picture of a path, of bytes or as it is, turned upright and loaded, in the mode of the file.

    `formats` are Pillow's names of those that are read.
    Raises PictureError for a missing, foreign, damaged or too large file.
    """
    if isinstance(source, Image.Image):
        _check_size(source, "the picture")
        return ImageOps.exif_transpose(source)
    name = "the picture" if isinstance(source, bytes) else os.fspath(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is the tighter one
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as opened:
                _check_size(opened, name)
                opened.load()
                return ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise PictureError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        known = f"{', '.join(formats[:-1])} or {formats[-1]}".replace("WEBP", "WebP")
        raise PictureError(f"{name} is not a {known} picture") from None
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} is too large: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise PictureError(f"{name} cannot be read: {reason(error)}") from error


def _check_size(picture: Image.Image, name: str) -> None:
    width, height = picture.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS or min(width, height) < 1:
        raise PictureError(
            f"{name} has {width}x{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} in all can be read. "
            "Scale it down first."
        )


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture as 8-bit sRGB, transparent parts on white. Raises PictureError for a mode without a clear range."""
    picture = _eight_bits(picture)
    alpha = _alpha(picture)
    colours = _srgb(picture.convert("RGB") if picture.mode in ("P", "PA") else picture)
    if alpha is None:
        return colours
    white = Image.new("RGB", picture.size, (255, 255, 255))
    return Image.composite(colours, white, alpha)


def to_mask(picture: Image.Image) -> Image.Image:
    """The picture as an 8-bit grey mask, white = repaint; its transparent parts are black."""
    picture = _eight_bits(picture)
    alpha = _alpha(picture)
    grey = (picture.convert("RGB") if picture.mode in ("P", "PA", "RGBA", "RGBa", "CMYK") else picture).convert("L")
    return grey if alpha is None else Image.composite(grey, Image.new("L", picture.size, 0), alpha)


def to_kept(picture: Image.Image) -> Image.Image:
    """The picture as 8-bit sRGB with its transparency: L, LA, RGB or RGBA. `to_rgb` and `to_mask` see no difference."""
    if picture.mode in ("L", "LA", "RGB", "RGBA") and not {"icc_profile", "transparency"} & set(picture.info):
        picture.info = {}
        return picture  # as it is, because a copy of a large one costs as much as the picture
    picture = _eight_bits(picture)
    alpha = _alpha(picture)
    if picture.mode in ("1", "L", "LA") and "icc_profile" not in picture.info:
        colours = picture.convert("L")
    else:
        colours = _srgb(picture.convert("RGB") if picture.mode in ("P", "PA") else picture)
    if alpha is not None:
        colours.putalpha(alpha)
    colours.info = {}
    return colours


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Pictures of 16 bits as 8, rounded: Pillow's own conversion clips them."""
    if picture.mode == "F":
        raise PictureError("the picture has floating-point values of an unknown range; save it with 8 or 16 bits first")
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise PictureError(
            f"the picture's values run from {values.min()} to {values.max()}; they must be within 0 and 65535"
        )
    return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))


def _alpha(picture: Image.Image) -> Image.Image | None:
    if picture.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        return picture.getchannel("A")
    if "transparency" in picture.info:
        return picture.convert("RGBA").getchannel("A")
    return None


def _srgb(picture: Image.Image) -> Image.Image:
    """RGB colours in sRGB. A profile that cannot be used is passed over, as viewers do."""
    if picture.mode in ("RGBa", "La"):  # premultiplied
        picture = picture.convert("RGBA" if picture.mode == "RGBa" else "LA")
    if picture.mode in ("RGBA", "LA"):
        picture = picture.convert(picture.mode.removesuffix("A"))
    profile = picture.info.get("icc_profile")
    if isinstance(profile, bytes) and picture.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if ImageCms.getProfileDescription(source).strip().startswith("sRGB"):
                return picture.convert("RGB")
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return picture.convert("RGB")
    return picture.convert("RGB")
