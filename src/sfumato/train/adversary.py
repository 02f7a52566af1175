"""A discriminator of patches, and how an autoencoder is trained against it: Esser et al. 2021."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

MOST = 1e4  # of the adaptive weight
SMALL = 1e-4  # added to the norm it is divided by
SLOPE = 0.2


class Discriminator(nn.Module):
    """PatchGAN, Isola et al. 2017: says of each patch of a picture whether it is real.

    Group norm in place of batch norm, so that what is said of a picture does not depend on those beside it, nor a step
    on how it is divided.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for before, width in pairwise(widths):
            stride = 1 if width == widths[-1] else 2
            layers += [nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False)]
            layers += [nn.GroupNorm(8, width), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] to [B, 1, h, w]: above 0 where it looks real."""
        return self.layers(pixels)  # type: ignore[no-any-return]


def judge(discriminator: nn.Module, pixels: Tensor) -> Tensor:
    """What the discriminator says, without gradients to its own weights."""
    fixed = {name: value.detach() for name, value in discriminator.named_parameters()}
    return functional_call(discriminator, fixed, (pixels,))  # type: ignore[no-any-return]


def hinge(real: Tensor, false: Tensor) -> Tensor:
    """The discriminator's loss, Lim and Ye 2017: nothing more is asked of what is judged right by more than 1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + false).mean())


def adaptive_weight(reconstruction: Tensor, deception: Tensor, last: Tensor) -> Tensor:
    """How much deceiving counts so that its gradient on the last layer's weights is as long as reconstruction's.

    Esser et al. 2021, equation 7; the mean over the processes of a run.
    """
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, deception)]
    weight: Tensor = (norms[0] / (norms[1] + SMALL)).clamp(0, MOST).detach()
    if dist.is_initialized():
        dist.all_reduce(weight)
        weight /= dist.get_world_size()
    return weight
