"""A1111's extras: a picture scaled up, by a factor or to a size. Only of files of our own."""

import html
import io
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image, PngImagePlugin

from sfumato.server.decode import PIXELS, SIDE
from sfumato.server.dialects.a1111_fields import Fields, refuse

Scale = Callable[[Image.Image, int, int], Image.Image]

UPSCALERS: dict[str, Scale | None] = {
    "None": None,
    "Lanczos": lambda picture, width, height: picture.resize((width, height), Image.Resampling.LANCZOS),
    "Nearest": lambda picture, width, height: picture.resize((width, height), Image.Resampling.NEAREST),
}
LATENT_MODES = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)


def upscaled(file: bytes, body: Mapping[str, Any], infotext: str = "") -> tuple[bytes, str]:
    """The picture (PNG) that extras make of a file, and what they say of it.

    Raises Problem 422 for an upscaler that is not there and for faces to be restored.
    """
    fields = Fields(body)
    for name in ("gfpgan_visibility", "codeformer_visibility"):
        if fields.number(name, 0.0) > 0:
            raise refuse(name, "is above 0; sfumato has no face restorers")
    with Image.open(io.BytesIO(file)) as opened:
        picture = opened.convert("RGB")
    visibility = fields.number("extras_upscaler_2_visibility", 0.0)
    first, second = (_upscaler(fields, name) for name in ("upscaler_1", "upscaler_2"))
    result, said = picture, []
    if first[1] is not None:
        result, said = _scaled(picture, first[1], fields), [f"Postprocess upscaler: {first[0]}"]
        if second[1] is not None and visibility > 0:
            result = Image.blend(result, _scaled(picture, second[1], fields), min(visibility, 1.0))
            said += [f"Postprocess upscaler 2: {second[0]}"]
    text = ", ".join([f"Postprocess upscale by: {result.width / picture.width:g}", *said]) if said else ""
    return _png(result, infotext, text), f"<p>{html.escape(text)}</p>" if text else ""


def _upscaler(fields: Fields, name: str) -> tuple[str, Scale | None]:
    asked = fields.text(name, "None") or "None"
    if asked not in UPSCALERS:
        raise refuse(name, f"is {asked!r}; there are {', '.join(UPSCALERS)}, and networks in hires fix alone")
    return asked, UPSCALERS[asked]


def _scaled(picture: Image.Image, scale: Scale, fields: Fields) -> Image.Image:
    """Mode 0 scales by a factor, mode 1 to cover a size, of which the middle is kept."""
    mode = fields.whole("resize_mode", 0)
    if mode not in (0, 1):
        raise refuse("resize_mode", f"is {mode}; it must be 0 or 1")
    target = (fields.whole("upscaling_resize_w", 512), fields.whole("upscaling_resize_h", 512))
    factor = fields.number("upscaling_resize", 2.0)
    if mode == 1:
        if min(target) < 1 or max(target) > SIDE:
            told = f"is {target[0]} and upscaling_resize_h {target[1]}; each must be 1 to {SIDE}"
            raise refuse("upscaling_resize_w", told)
        factor = max(target[0] / picture.width, target[1] / picture.height)
    if not 0 < factor <= SIDE:
        raise refuse("upscaling_resize", f"is {factor:g}; it must be above 0 and at most {SIDE}")
    width, height = max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)
    if width * height > PIXELS or max(width, height) > SIDE:  # it could not be handed in again
        told = f"would make {width}x{height} pixels; at most {SIDE} a side and {PIXELS} in all are made"
        raise refuse("upscaling_resize", told)
    result = scale(picture, width, height)
    if mode == 1 and fields.flag("upscaling_crop", True) and result.size != target:
        left, top = (result.width - target[0]) // 2, (result.height - target[1]) // 2
        result = result.crop((left, top, left + target[0], top + target[1]))
    return result


def _png(picture: Image.Image, infotext: str, said: str) -> bytes:
    texts, content = PngImagePlugin.PngInfo(), io.BytesIO()
    if infotext:
        texts.add_text("parameters", infotext)
    if said:
        texts.add_text("extras", said)
    picture.save(content, "PNG", pnginfo=texts)
    return content.getvalue()
