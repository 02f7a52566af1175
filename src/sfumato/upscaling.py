"""Pictures made larger: by Pillow's filters on pixels that are not rounded, by networks, and latents by PyTorch's."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato.errors import ModelNotFoundError, RequestError
from sfumato.images import MAX_SIDE, PictureSource, open_picture, to_levels, to_pictures, to_pixels, to_rgb
from sfumato.metadata import format_infotext, parse_infotext, upscaler_label
from sfumato.nn.upscaler import Upscaler, upscale_tiled
from sfumato.request import LATENT_UPSCALERS, Hires
from sfumato.weights.hashing import hash_file
from sfumato.weights.locate import locate
from sfumato.weights.upscaler_file import load_upscaler

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Shape = tuple[int, int]
"""Height and width."""


def resize(pixels: Tensor, shape: Shape, method: str) -> Tensor:
    """Pixels [B, C, H, W] in another shape by one of FILTERS, in float32, within the range that they had."""
    if pixels.shape[-2:] == shape:
        return pixels
    planes = pixels.float().cpu().flatten(0, 1)
    size = (shape[1], shape[0])
    resized = [Image.fromarray(plane.numpy()).resize(size, FILTERS[method]) for plane in planes]
    whole = torch.stack([torch.frombuffer(bytearray(plane.tobytes()), dtype=torch.float32) for plane in resized])
    low, high = planes.aminmax()
    return whole.clamp(low, high).view(*pixels.shape[:2], *shape).to(pixels.device)


def covering(shape: Shape, target: Shape) -> Shape:
    """The smallest shape with the proportions of the first that covers the second."""
    factor = max(target[0] / shape[0], target[1] / shape[1])
    return max(round(shape[0] * factor), target[0]), max(round(shape[1] * factor), target[1])


def middle(values: Tensor, shape: Shape) -> Tensor:
    """The middle of [B, C, H, W]; of an odd surplus the larger half is cut off on the right and below."""
    top, left = (values.shape[-2] - shape[0]) // 2, (values.shape[-1] - shape[1]) // 2
    return values[..., top : top + shape[0], left : left + shape[1]]


def enlarge_latent(latent: Tensor, cells: Shape, method: str) -> Tensor:
    """A latent [B, C, h, w] of so many cells by one of LATENT_UPSCALERS; what does not fit the shape is cropped."""
    mode, antialias = LATENT_UPSCALERS[method]
    shape = covering((latent.shape[-2], latent.shape[-1]), cells)
    return middle(F.interpolate(latent, size=shape, mode=mode, antialias=antialias), cells)


def enlarge(pixels: Tensor, shape: Shape, method: str, device: torch.device | None = None) -> Tensor:
    """Pixels [B, 3, H, W] in [-1, 1] in another shape, by one of FILTERS or a network.

    What does not fit the shape is cropped. A network is asked again until its pictures are large enough; a last step
    to the exact shape is Lanczos's. Raises what `network_file` and `load_upscaler` raise.
    """
    whole = covering((pixels.shape[-2], pixels.shape[-1]), shape)
    if method in FILTERS:
        return middle(resize(pixels, whole, method), shape)
    network = network_of(network_file(method)).to(device or pixels.device)
    larger = pixels.to(device or pixels.device, torch.float32) / 2 + 0.5
    while larger.shape[-2] < whole[0] or larger.shape[-1] < whole[1]:
        larger = upscale_tiled(network, larger).clamp(0, 1)
        if network.scale == 1:
            break
    return middle(resize(larger * 2 - 1, whole, "lanczos"), shape)


def network_file(method: str) -> Path:
    """The file of a network by its name or path. Raises ModelNotFoundError if there is none."""
    try:
        path = locate(method, kind="upscaler")
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{error} Without a network there are {', '.join(FILTERS)}.") from error
    if not path.is_file():
        raise ModelNotFoundError(f"the upscaler {method!r} leads to {path}, which is no file; name the file in it.")
    return path


def check_upscaler(method: str, field: str) -> None:
    """Raise RequestError that names the field for a way to enlarge that is neither known nor the name of a network."""
    if method in FILTERS or method in LATENT_UPSCALERS:
        return
    try:
        network_file(method)
    except ModelNotFoundError as error:
        raise RequestError(f"{field} is {method!r}: {error}", field) from error


def network_of(path: Path) -> Upscaler:
    """The network of a file, kept while the file stays as it is. Raises what `load_upscaler` raises."""
    state = path.stat() if path.exists() else None
    return _kept(path, (state.st_size, state.st_mtime_ns) if state else None)


@lru_cache(maxsize=1)
def _kept(path: Path, state: tuple[int, int] | None) -> Upscaler:
    return load_upscaler(path)


def upscaler_hash(method: str) -> str | None:
    """The sha256 of the network's file that a method names; None for a filter. Errors are those of `network_file`."""
    return None if method in FILTERS or method in LATENT_UPSCALERS else hash_file(network_file(method))


def enlarged_picture(source: PictureSource, hires: Hires, device: torch.device) -> Image.Image:
    """A picture in the size that `hires` says, by its upscaler; what A1111 wrote about it goes along.

    Raises PictureError, RequestError for a size that is too large, and what `enlarge` raises.
    """
    check_upscaler(hires.upscaler, "upscaler")
    opened = open_picture(source)
    picture = to_rgb(opened)
    width, height = hires.size_for(*picture.size)
    if max(width, height) > MAX_SIDE:
        raise RequestError(f"the picture would be {width}x{height}; a side has at most {MAX_SIDE} pixels", "size")
    larger = to_pictures(to_levels(enlarge(to_pixels([picture]), (height, width), hires.upscaler, device)))[0]
    if "parameters" in opened.info:
        info = parse_infotext(str(opened.info["parameters"]))
        if len(info.parameters) >= 3:
            told = {"Postprocess upscaler": upscaler_label(hires.upscaler)}
            if hires.scale is not None:
                told["Postprocess upscale by"] = f"{hires.scale:g}"
            parameters = {**info.parameters, **told}
            larger.info["parameters"] = format_infotext(replace(info, parameters=parameters))
    return larger
