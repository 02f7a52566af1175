"""Dense supervision that the drawn world gives for free: what each latent cell shows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.scenes.vocabulary import COLOURS, KINDS

WIDTH = 64


class LayoutHead(nn.Module):
    """Kind and colour of what each latent cell shows, from a UNet's last features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = [1 + len(KINDS), 1 + len(COLOURS)]
        self.layers = nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.SiLU(), nn.Conv2d(WIDTH, sum(self.sizes), 1))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """[B, C, h, w] to two maps of classes, [B, classes, h, w]."""
        return self.layers(features).split(self.sizes, dim=1)  # type: ignore[no-any-return]


def layout_loss(answers: tuple[Tensor, ...], goals: tuple[Tensor, ...], told: Tensor, microbatch: int) -> Tensor:
    """Cross-entropy of kind and colour in each latent cell.

    `answers`: of the head; `goals`: classes [B, h, w] each, 0 is background; `told` [B]: which samples had words.
    Cells that show a thing count as much as all others, within each microbatch.
    """
    losses = [F.cross_entropy(a, g.long(), reduction="none") for a, g in zip(answers, goals, strict=True)]
    thing = (goals[0] > 0).float()
    balance = [
        part / part.sum().clamp(min=1) + (1 - part) / (1 - part).sum().clamp(min=1)
        for part in torch.split(thing, microbatch)
    ]
    weight = torch.cat(balance) * told.float()[:, None, None] / (2 * len(balance))
    return (torch.stack(losses).sum(0) * weight).sum()
