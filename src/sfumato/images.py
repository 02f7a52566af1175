"""Pixels to tensors and back, fitting, masks, grids, and how alike two pictures are.

A picture of another size than is asked is cropped to fill: scaled (Lanczos) until it covers the asked size, and its
middle is kept (`sfumato.fitting`). How a file becomes upright pixels is told in `sfumato.opening`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from sfumato.errors import PictureError

# reading and fitting have rooms without torch; those who work with pixels find it here too
from sfumato.fitting import RESIZES as RESIZES
from sfumato.fitting import crop_to_fill as crop_to_fill
from sfumato.fitting import fit_and_fill as fit_and_fill
from sfumato.fitting import stretch as stretch
from sfumato.opening import FORMATS as FORMATS
from sfumato.opening import MAX_PIXELS as MAX_PIXELS
from sfumato.opening import MAX_SIDE as MAX_SIDE
from sfumato.opening import NO_PICTURES as NO_PICTURES
from sfumato.opening import Pictures as Pictures
from sfumato.opening import PictureSource as PictureSource
from sfumato.opening import named_picture as named_picture
from sfumato.opening import open_picture as open_picture
from sfumato.opening import to_mask as to_mask
from sfumato.opening import to_rgb as to_rgb

# Of the pictures that CLIP was trained on, in 0 to 1; github.com/openai/CLIP: clip/clip.py
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def to_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size as [B, 3, H, W] float32 in [-1, 1]."""
    arrays = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def clip_pixels(picture: Image.Image, side: int) -> Tensor:
    """An RGB picture as CLIP's vision tower sees it, [1, 3, side, side]: its middle, normalised."""
    shorter, longer = min(picture.size), max(picture.size)
    long_side = int(side * longer / shorter)  # rounded down, as transformers does
    size = (side, long_side) if picture.width <= picture.height else (long_side, side)
    scaled = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    levels = to_pixels([scaled.crop((left, top, left + side, top + side))]) / 2 + 0.5
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (levels - mean) / std


def to_levels(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as [0, 255], still float32 and not rounded; what lies outside is clamped."""
    return ((pixels.float() / 2 + 0.5).clamp(0, 1)) * 255.0


def to_pictures(levels: Tensor) -> list[Image.Image]:
    """Levels [B, 3, H, W] in [0, 255] as RGB pictures, rounded: the one place where pixels become bytes.

    Raises PictureError if a value is not finite, instead of making it black.
    """
    if not bool(torch.isfinite(levels).all()):
        raise PictureError(
            "the decoded picture has values that are not finite; try --dtype float32, and check the model's weights"
        )
    rounded = levels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in rounded]


def feather(mask: Image.Image, blur: float) -> Image.Image:
    """The mask with a soft edge that lies inside of it, so that what was black stays exactly black.

    The mask is blurred (a Gaussian of `blur` pixels standard deviation) and 2 x blurred - 1 is kept: 0 at a straight
    edge, 1 some 2.5 x blur further in. What is thinner than twice that is repainted only in part.
    """
    if blur == 0:
        return mask
    blurred = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur))).astype(np.int32)
    hard = np.asarray(mask).astype(np.int32)
    ramp = np.maximum(2 * blurred - 255, 0)
    return Image.fromarray(((ramp * hard + 127) // 255).astype(np.uint8))


def mask_weights(mask: Image.Image) -> Tensor:
    """A grey mask as [1, 1, H, W] float32 in [0, 1]."""
    return torch.from_numpy(np.array(mask)).float()[None, None] / 255.0


def pad_to_multiple(pixels: Tensor, multiple: int) -> Tensor:
    """[B, C, H, W] made larger on the right and below, by repeating the last column and row, to whole multiples."""
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def grid(pictures: Sequence[Image.Image], columns: int | None = None, *, gap: int = 0) -> Image.Image:
    """The pictures in rows, on white, in cells of the largest one's size; as square as can be without `columns`.

    Raises PictureError if there are none, or the sheet would be larger than a picture may be.
    """
    if not pictures:
        raise PictureError("a grid needs at least one picture")
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width = max(picture.width for picture in pictures) + gap
    height = max(picture.height for picture in pictures) + gap
    if max(columns * width, rows * height) > 4 * MAX_SIDE:
        raise PictureError(f"a grid of {rows}x{columns} would have {columns * width}x{rows * height} pixels")
    sheet = Image.new("RGB", (columns * width - gap, rows * height - gap), (255, 255, 255))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * width, place // columns * height))
    return sheet


def psnr(first: Image.Image, second: Image.Image) -> float:
    """The peak signal-to-noise ratio of two RGB pictures of one size, in decibels; infinite when they are equal."""
    a, b = (np.asarray(picture.convert("RGB")).astype(np.float64) for picture in (first, second))
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def ssim(first: Image.Image, second: Image.Image) -> float:
    """The structural similarity of two RGB pictures of one size, the mean over pixels and channels; 1 when equal.

    A Gaussian window of 11 pixels and standard deviation 1.5 within the picture, K1 = 0.01 and K2 = 0.03.
    Raises PictureError below 11 pixels a side. Wang et al. 2004, equation 13.
    """
    if min(first.size) < 11:
        raise PictureError(f"SSIM needs 11 pixels a side; the picture is {first.width}x{first.height}")
    a, b = (to_levels(to_pixels([picture])).double() for picture in (first, second))
    offsets = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(x: Tensor) -> Tensor:
        rows = F.conv2d(x.transpose(0, 1), window.view(1, 1, 11, 1))
        return F.conv2d(rows, window.view(1, 1, 1, 11))

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())
