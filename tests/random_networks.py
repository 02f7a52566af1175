"""Networks with random weights, and how far two outputs are apart."""

import torch
from torch import Tensor, nn


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what is expected."""
    assert found.shape == expected.shape
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def randomize(network: nn.Module, seed: int = 0) -> None:
    """Random weights that keep activations near 1, and random norms and biases, so that each of them matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.ndim > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
            else:
                value.normal_(1.0 if name.endswith("weight") else 0.0, 0.1, generator=generator)
