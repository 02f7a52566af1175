"""Start noise that leans towards another seed's, or that is another size's: pictures that stay alike.

What A1111 calls variation seeds and "resize seed from".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.noise import Fresh, NoiseSource


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The way from one noise [C, h, w] to another along an arc, column by column: 0 is the first, 1 the second.

    Mixing in a straight line would lose variance, which the network would see. A1111 measures the angle along the
    second-last axis, so that is what is kept alike. Shoemake 1985, section 3.3; a line where the angle is none.
    """
    directions = [noise / noise.norm(dim=-2, keepdim=True) for noise in (first, second)]
    angle = torch.acos((directions[0] * directions[1]).sum(-2, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    arc = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / sine
    return torch.where(sine > 1e-6, arc, (1 - share) * first + share * second)


def placed(inner: Tensor, outer: Tensor) -> Tensor:
    """The noise `outer` [C, h, w] with `inner` in its middle; the middle of `inner` where that is the larger one."""
    result = outer.clone()
    to, take = zip(*(_middles(inner.shape[axis], outer.shape[axis]) for axis in (-2, -1)), strict=True)
    result[..., to[0], to[1]] = inner[..., take[0], take[1]]
    return result


def _middles(inner: int, outer: int) -> tuple[slice, slice]:
    """Where a length of cells goes in another, and which of its cells those are; rounded down, as A1111 does."""
    offset = (outer - inner) // 2
    length = inner if offset >= 0 else inner + 2 * offset
    start, skipped = max(offset, 0), max(-offset, 0)
    return slice(start, start + length), slice(skipped, skipped + length)


@dataclass(frozen=True)
class VariedNoise:
    """A source of noise whose start is varied; all other draws are the source's own.

    `others` are the seeds that the images' noises lean towards by `strength`; `cells` is the latent's height and width
    whose noise is placed in the middle of an image's, of `shape` (C, h, w).
    """

    source: NoiseSource
    fresh: Fresh
    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    others: Sequence[int] | None
    strength: float
    cells: tuple[int, int]

    def start(self) -> Tensor:
        whole = self.source.start()
        return torch.stack([self._one(index, own) for index, own in enumerate(whole)])

    def draw(self, purpose: str, index: int = 0) -> Tensor:
        return self.source.draw(purpose, index)

    def step(self, index: int) -> Tensor:
        return self.source.step(index)

    def _one(self, index: int, own: Tensor) -> Tensor:
        """The start noise of one image; mixed on the CPU, so that it is the same for every device."""
        shape = (self.shape[0], *self.cells)
        resized = shape != self.shape
        noise = self.fresh(self.seeds[index], shape) if resized else own.cpu()
        if self.others is not None and self.strength > 0:
            noise = slerp(noise, self.fresh(self.others[index], shape), self.strength)
        noise = noise.to(own)
        return placed(noise, own) if resized else noise
