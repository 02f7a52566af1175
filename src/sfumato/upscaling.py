"""Pictures made larger: by Pillow's filters on pixels that are not rounded, and latents by PyTorch's."""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato.request import LATENT_UPSCALERS

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


def enlarge(pixels: Tensor, shape: Shape, method: str) -> Tensor:
    """Pixels [B, 3, H, W] of a shape by one of FILTERS; what does not fit the shape is cropped."""
    whole = covering((pixels.shape[-2], pixels.shape[-1]), shape)
    return middle(resize(pixels, whole, method), shape)
