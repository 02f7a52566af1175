"""Small denoisers and noise sources that the tests of samplers share: exact where a closed form exists."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

SHAPE = (2, 4, 3, 3)


def start(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Unit normal noise in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(seed: int = 1) -> Callable[[int], Tensor]:
    """A noise source that continues one stream, as the reference implementations do; the index is not read."""
    generator = torch.Generator().manual_seed(seed)
    return lambda _: torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def silent(_: int) -> Tensor:
    """A noise source for samplers that must not draw."""
    raise AssertionError("a deterministic sampler drew noise")


def network(x: Tensor, timestep: Tensor) -> Tensor:
    """A smooth nonlinear stand-in for a network: depends on every channel and on the timestep."""
    time = timestep.to(x.dtype).reshape(-1, 1, 1, 1) / 1000
    mixed = x + 0.3 * x.roll(1, dims=1)
    return torch.tanh(mixed * (0.5 + time)) * 0.8 + 0.2 * torch.sin(3 * time) - 0.1 * x.flip(-1)


def gaussian(mean: float, deviation: float) -> Callable[[Tensor, float], Tensor]:
    """The exact denoiser of data that is normal: the posterior mean of z given x = z + sigma n."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return mean + (x - mean) * (deviation**2 / (deviation**2 + sigma**2))

    return denoise


def gaussian_flow(x: Tensor, sigma: float, sigma_next: float, mean: float, deviation: float) -> Tensor:
    """Where the probability-flow ODE of normal data takes x: deviations scale with the total standard deviation."""
    return mean + (x - mean) * math.hypot(deviation, sigma_next) / math.hypot(deviation, sigma)


def mixture(means: tuple[float, ...], deviation: float) -> Callable[[Tensor, float], Tensor]:
    """The exact denoiser of data from an equal mixture of normals, element by element."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        spread = deviation**2 + sigma**2
        centres = torch.tensor(means, dtype=x.dtype)
        gaps = x.unsqueeze(-1) - centres
        share = torch.softmax(-(gaps**2) / (2 * spread), dim=-1)
        return (share * (centres + gaps * (deviation**2 / spread))).sum(-1)

    return denoise
