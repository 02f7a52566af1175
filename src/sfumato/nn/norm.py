"""Group norm that is fast where PyTorch's own is not: training in bfloat16 on CPUs, and large half maps on CUDA."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 1 << 17  # numbers of a group; where there are fewer, PyTorch's one kernel is faster than several


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` with affine weights: same values, same state; where PyTorch's own is slow it takes another way.

    In bfloat16 on a CPU its channels-last kernels walk a group's few channels at a time. Sums over the cells of each
    channel, which are contiguous rows, and then one scaled sum give the same in a few passes over memory. On CUDA one
    block of threads walks a whole group, so that a large map keeps 32 of a GPU's processors busy; see `by_channels`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        slow = x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.ndim == 4
        if slow and torch.is_grad_enabled() and not torch.compiler.is_compiling():  # which writes a kernel of its own
            return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-any-return, no-untyped-call]
        half = x.dtype in (torch.float16, torch.bfloat16) and x.device.type == "cuda"
        if half and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and self._is_large(x):
            return by_channels(x, self.num_groups, self.weight, self.bias, self.eps)
        return super().forward(x)

    def _is_large(self, x: Tensor) -> bool:
        """Is this a map that `by_channels` takes, and faster?"""
        taken = x.ndim == 4 and (len(x) == 1 or x.is_contiguous())
        return taken and x.numel() >= LARGE * self.num_groups * len(x)


def by_channels(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm of [B, C, h, w] from sums over each channel, in float32; many threads take part in each.

    The last pass, over the whole map, is that of a batch norm whose statistics are known. Several pictures must have
    their channels first in memory.
    """
    batch, channels = x.shape[:2]
    cells = x.shape[2] * x.shape[3]
    sums = x.sum((2, 3), dtype=torch.float32).view(batch, groups, -1)
    squares = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32).square().view(batch, groups, -1)
    mean = sums.mean(2, keepdim=True) / cells  # [B, G, 1]
    variance = (squares.mean(2, keepdim=True) / cells - mean.square()).clamp(min=0)
    mean, variance = (each.expand_as(sums).reshape(-1) for each in (mean, variance))
    scale, offset = (each.float().repeat(batch) for each in (weight, bias))
    flat = x.view(1, batch * channels, *x.shape[2:])
    return F.batch_norm(flat, mean, variance, scale, offset, eps=eps).view(x.shape)


class _GroupNorm(torch.autograd.Function):
    """y = a x + b with a and b per picture and channel; Wu and He 2018."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        _, channels, height, width = x.shape
        cells = height * width * channels // groups
        wide = x.float()  # squares rounded to bfloat16 would be off by as much as a mean far from zero hides
        sums = torch.stack([wide.sum((2, 3)), wide.square().sum((2, 3))])  # [2, B, C]
        mean, square = sums.reshape(2, len(x), groups, -1).sum(3) / cells
        rstd = (square - mean**2).clamp(min=0).add(eps).rsqrt()
        mean, rstd = (part.repeat_interleave(channels // groups, 1) for part in (mean, rstd))  # [B, C]
        scale = rstd * weight.float()
        offset = bias.float() - mean * scale
        y = torch.empty_like(wide)
        y = torch.addcmul(offset[:, :, None, None], scale[:, :, None, None], wide, out=y).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        _, channels, height, width = x.shape
        per_group = channels // ctx.groups
        grad = grad.contiguous(memory_format=torch.channels_last) if _is_last(x) else grad.contiguous()
        grads = grad.sum((2, 3), dtype=torch.float32)  # [B, C]
        products = _dot(grad, x)  # [B, C]
        normed = (products - mean * grads) * rstd  # sum of grad * normalised x
        scale = weight.float() * rstd
        shares = (weight.float() * torch.stack([grads, normed])).unflatten(2, (ctx.groups, per_group)).mean(3)
        means, slopes = shares.repeat_interleave(per_group, 2) / (height * width)  # of the gradient over a group
        slope = -rstd * rstd * slopes
        offset = -rstd * means - slope * mean
        # Into a tensor of x's memory format: the small operands, first, would decide otherwise.
        x_grad = torch.empty_like(x)
        torch.addcmul(_cells(offset, x), _cells(slope, x), x, out=x_grad)
        x_grad.addcmul_(_cells(scale, x), grad)
        return x_grad, normed.sum(0), grads.sum(0), None, None


def _is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _cells(values: Tensor, like: Tensor) -> Tensor:
    """[B, C] to [B, C, 1, 1] in the precision of `like`."""
    return values.to(like.dtype)[:, :, None, None]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sums of products over the cells, [B, C], accumulated in float32."""
    return (a * b).sum((2, 3), dtype=torch.float32)
