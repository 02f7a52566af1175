"""From a latent to a rough picture without a decoder: colour is nearly linear in the latent's channels."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from sfumato.images import to_pictures

Factors = tuple[tuple[float, float, float], ...]
"""For each latent channel what it adds to red, green and blue in [-1, 1]; a last row may hold what is always added."""

# fitted by the Stable Diffusion community for the scaled latents of SD 1.x and 2.x (keturn, huggingface forum, 2022)
SD_FACTORS: Factors = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
# the same for SDXL (ComfyUI, latent_formats.py)
SDXL_FACTORS: Factors = (
    (0.3651, 0.4232, 0.4341),
    (-0.2533, -0.0042, 0.1068),
    (0.1076, 0.1111, -0.0362),
    (-0.3165, -0.2492, -0.2188),
    (0.1084, -0.0175, -0.0011),
)


def preview(latent: Tensor, factors: Factors) -> list[Image.Image]:
    """A scaled latent [B, C, h, w] as B pictures of one pixel per cell.

    Raises ValueError if there are neither C nor C + 1 rows of factors.
    """
    matrix = torch.tensor(factors, dtype=torch.float32, device=latent.device)
    channels = latent.shape[1]
    if len(matrix) not in (channels, channels + 1):
        raise ValueError(f"{len(matrix)} rows of preview factors for a latent of {channels} channels")
    colours = torch.einsum("bchw,cr->brhw", latent.float(), matrix[:channels])
    if len(matrix) > channels:
        colours = colours + matrix[channels].view(1, 3, 1, 1)
    return to_pictures(torch.nan_to_num(colours / 2 + 0.5).clamp(0, 1) * 255.0)


def fit_factors(latents: Tensor, pixels: Tensor) -> Factors:
    """The factors, with a constant row, that take scaled latents nearest to their pictures, by least squares.

    latents [B, C, h, w]; pixels [B, 3, h, w] in [-1, 1], averaged down to the latents' size.
    """
    cells = latents.double().permute(0, 2, 3, 1).flatten(0, 2)  # [B * h * w, C]
    ones = torch.ones(len(cells), 1, dtype=torch.float64, device=cells.device)
    colours = pixels.double().permute(0, 2, 3, 1).flatten(0, 2)
    solution: Tensor = torch.linalg.lstsq(torch.cat([cells, ones], dim=1), colours).solution
    rows: Sequence[Sequence[float]] = solution.tolist()
    return tuple((row[0], row[1], row[2]) for row in rows)
