"""How different two pictures look to a network: distances of features, for the loss of an autoencoder."""

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import ConfigError, ModelFileError
from sfumato.scenes.reader import Reader, load_reader
from sfumato.weights.files import open_file

# VGG-16 (Simonyan and Zisserman 2015) in five slices, each ending in the ReLU whose output is compared.
SLICES = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
TINY = 1e-10


def perceptual(name: str) -> "LPIPS | ReaderDistance":
    """The distance called "reader", by the network that ships beside the embedded model, or LPIPS from a file.

    Raises ConfigError where there is no such file or it holds something else.
    """
    if name == "reader":
        return ReaderDistance()
    return LPIPS.from_file(Path(name))


def unit(features: Tensor) -> Tensor:
    """Features of unit length at each place, [B, C, h, w]."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + TINY)


class ReaderDistance(nn.Module):
    """The mean squared distance of unit features in each block of the network that reads the drawn world."""

    def __init__(self) -> None:
        super().__init__()
        path = Path(str(resources.files("sfumato").joinpath("embedded", "reader.safetensors")))
        self.reader: Reader = load_reader(path).requires_grad_(False).eval()
        self.seen: list[Tensor] = []
        for block in (self.reader.block, *self.reader.blocks):
            block.register_forward_hook(lambda module, inputs, output: self.seen.append(output))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Of pictures [B, 3, H, W] in [-1, 1], [B]."""
        self.seen.clear()
        self.reader.features(torch.cat([one, other]))
        distances = []
        for features in self.seen:
            a, b = unit(features.float()).chunk(2)
            distances.append((a - b).square().sum(1).mean((1, 2)))
        self.seen.clear()
        return torch.stack(distances).mean(0)


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity on VGG-16, Zhang et al. 2018, as their package computes it."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.slices = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)) for widths in SLICES
        )
        self.lins = nn.ParameterList(nn.Parameter(torch.zeros(widths[-1])) for widths in SLICES)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    @classmethod
    def from_file(cls, path: Path) -> "LPIPS":
        """From a .safetensors file with the package's own names: `net.slice1.0.weight`, `lin0.model.1.weight`, ..."""
        try:
            tensors = open_file(path)
        except ModelFileError as error:
            raise ConfigError(f"loss.features is 'reader' or a file of LPIPS weights. {error}") from error
        network, number = cls(), 0
        state = {}
        for at, convolutions in enumerate(network.slices):
            number += bool(at)  # a pooling stands between the slices
            for position, _ in enumerate(cast(nn.ModuleList, convolutions)):
                for kind in ("weight", "bias"):
                    state[f"slices.{at}.{position}.{kind}"] = f"net.slice{at + 1}.{number}.{kind}"
                number += 2  # and a ReLU after each convolution
            state[f"lins.{at}"] = f"lin{at}.model.1.weight"
        absent = sorted(set(state.values()) - set(tensors))
        if absent:
            raise ConfigError(
                f"{path} does not hold LPIPS on VGG-16: {len(absent)} tensors are missing, first {absent[0]!r}. Save "
                "lpips.LPIPS(net='vgg').state_dict() as safetensors."
            )
        found = {ours: tensors[theirs] for ours, theirs in state.items()}
        network.load_state_dict({name: x.flatten() if name.startswith("lins") else x for name, x in found.items()})
        return network.requires_grad_(False).eval()

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Of pictures [B, 3, H, W] in [-1, 1], [B]."""
        x = (torch.cat([one, other]) - self.shift) / self.scale
        total = torch.zeros(len(one), device=x.device)
        for at, convolutions in enumerate(self.slices):
            x = F.max_pool2d(x, 2) if at else x
            for convolution in cast(nn.ModuleList, convolutions):
                x = F.relu(convolution(x))
            a, b = unit(x.float()).chunk(2)
            total = total + ((a - b).square() * self.lins[at][:, None, None]).sum(1).mean((1, 2))
        return total
