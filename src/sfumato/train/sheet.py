"""Contact sheets of what a run makes."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor


def contact_sheet(rows: Sequence[Tensor]) -> Image.Image:
    """One picture of rows of pictures, each row [N, 3, H, W] in [-1, 1]."""
    strips = [torch.cat(list(row.float().cpu()), dim=-1) for row in rows]
    sheet = torch.cat(strips, dim=-2).clamp(-1, 1)  # [3, rows * H, N * W]
    pixels = ((sheet + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())
