"""How much of what was drawn is taken where there is a start picture, pixel by pixel."""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from sfumato.diffusion.soft import changed
from sfumato.images import mask_weights
from sfumato.job import Job
from sfumato.masks import shares_of
from sfumato.request.together import GREY

STEEP = 3.0  # pixels from 1/3 white on are those that were drawn; below, where little changes, they are faded in
ALIASING = 4.0  # pixels, the blur that hides the latent cells in what changed: A1111's


def taken(job: Job, latent: Tensor) -> Tensor:
    """How much counts of the pixels that were made of a latent [1, C, h, w]; [1, 1, H, W] of the whole picture.

    That is the mask with its soft edge, but only near black where grey was mixed in the latent already; or what has
    changed, where soft inpainting asks for that. What is black in the mask is never taken.
    """
    mask = job.mask if job.inset is None else job.inset.mask
    assert mask is not None
    blur = job.request.mask_blur or 0.0
    shares = shares_of(mask, blur, STEEP if any(getattr(job.request, field) for field in GREY) else 1.0)
    soft = job.request.soft_inpainting
    if soft is None or soft.difference_threshold is None:
        return shares
    cells = changed(
        job.posterior.mean,
        latent,
        job.shares,
        preservation_strength=soft.preservation_strength,
        mask_influence=soft.mask_influence,
        difference_threshold=soft.difference_threshold,
        difference_contrast=soft.difference_contrast,
    )
    pixels = job.canvas.crop(enlarged(cells, job.canvas.working))
    pixels = pixels if job.inset is None else job.inset.spread(pixels, 1.0)
    return torch.where(shares == 0, 0.0, pixels)


def enlarged(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Shares [1, 1, h, w] of cells as those of pixels [1, 1, H, W], of a width and height, without steps between."""
    grey = Image.fromarray((cells[0, 0].cpu().numpy() * 255).astype(np.uint8))  # as A1111 has them: whole levels, down
    smooth = grey.resize(size, Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(ALIASING))
    return mask_weights(smooth)
