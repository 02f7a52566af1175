"""Networks on a torus: convolutions whose map goes on at the other edge, for pictures that tile without a seam."""

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.blocks import Downsample
from sfumato.nn.lora import twin

N = TypeVar("N", bound=nn.Module)


class CircularConv2d(nn.Module):
    """A convolution that shares the weights of another, and sees the opposite edge beyond an edge of the map.

    It pads `before` cells above and on the left, `after` below and on the right: around along `x` and `y`, with zeros
    where that is not wanted.
    """

    def __init__(self, conv: nn.Conv2d, *, x: bool, y: bool, before: int, after: int) -> None:
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias
        self.stride = conv.stride
        self.x, self.y = x, y
        columns, rows = (before, after, 0, 0), (0, 0, before, after)
        self.pads = ((columns, "circular" if x else "constant"), (rows, "circular" if y else "constant"))

    def forward(self, x: Tensor) -> Tensor:
        for pad, mode in self.pads:
            x = F.pad(x, pad, mode=mode)
        return F.conv2d(x, self.weight, self.bias, self.stride)


def circular(network: N, *, x: bool, y: bool) -> N:
    """A second network that shares the weights of the first, on maps without edges along `x`, `y` or both.

    Rolling its input by a whole number of its strides rolls what comes out: attention and norms do not know where a
    cell lies, and no convolution sees an edge. The map must be a whole number of strides wide and high.
    """
    second = twin(network)
    for module in list(second.modules()):
        if isinstance(module, Downsample) and not module.pad_all_sides:
            module.conv = CircularConv2d(module.conv, x=x, y=y, before=0, after=1)  # type: ignore[assignment]
            module.pad_all_sides = True  # which the convolution itself now does
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.padding != (0, 0):
                width = int(child.padding[0])
                setattr(module, name, CircularConv2d(child, x=x, y=y, before=width, after=width))
    return second
