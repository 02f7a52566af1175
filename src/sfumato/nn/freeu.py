"""FreeU: more of the UNet's own features on the way up, less of the coarse part of what skips to them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.nn.blocks import UpLevel
from sfumato.nn.lora import twin
from sfumato.nn.unet import UNet


@dataclass(frozen=True)
class Rebalance:
    """A level's way to join: the first half of its own channels times `backbone`, the skip's coarse part times `skip`.

    The coarse part is what is left of a map at frequencies 0 and -1 in both directions.
    Si et al. 2023, equations 3 to 5, with the constant factor of their code's first version, as diffusers has it.
    """

    backbone: float
    skip: float

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        """[B, C, h, w] and [B, S, h, w] to [B, C + S, h, w]."""
        half = x.shape[1] // 2
        return torch.cat([x[:, :half] * self.backbone, x[:, half:], coarse_scaled(skip, self.skip)], dim=1)


def coarse_scaled(x: Tensor, scale: float) -> Tensor:
    """A map [B, C, h, w] with its lowest frequencies multiplied by `scale`, in float32 whatever its precision."""
    spectrum = torch.fft.fft2(x.float())
    mask = torch.ones(x.shape[-2:], device=x.device)
    for row in (0, -1):
        for column in (0, -1):
            mask[row, column] = scale
    filtered: Tensor = torch.fft.ifft2(spectrum * mask).real.to(x.dtype)
    return filtered


def with_freeu(unet: UNet, b1: float, b2: float, s1: float, s2: float) -> UNet:
    """A second UNet that shares the weights of the first, its two lowest levels on the way up rebalanced."""
    second = twin(unet)
    for level, join in zip(second.up_blocks, (Rebalance(b1, s1), Rebalance(b2, s2)), strict=False):
        assert isinstance(level, UpLevel)
        level.join = join
    return second
