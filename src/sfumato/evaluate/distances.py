"""How far two sets of pictures are from each other as distributions, by features of them. No network, no file.

Both distances are squared maximum mean discrepancies, with different kernels. Gretton et al. 2012.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Distance:
    """KID and MMD of one source of pictures on one suite from the renders of its scenes; 0 is no difference.

    Sources: "model"; "renders", the same scenes with other chances, which is as near as can be; "autoencoder", those
    after encoding and decoding. Estimates are unbiased, so they may lie a little below 0.
    """

    suite: str
    source: str
    pictures: int
    kid: float
    mmd: float


def kid(first: Tensor, second: Tensor) -> float:
    """The kernel distance of features [N, D]: unbiased, with the kernel (x.y / D + 1)^3.

    Bińkowski et al. 2018, section 4. Row i of one belongs to row i of the other, see `unbiased`.
    """
    first, second = first.double(), second.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    return unbiased(kernel(first, first), kernel(second, second), kernel(first, second))


def mmd(first: Tensor, second: Tensor, width: float) -> float:
    """The discrepancy of features [N, D], unbiased, with the kernel exp(-|x - y|^2 / (2 width^2)). It is below 2."""
    first, second = first.double(), second.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2) / (2 * width**2)).exp()

    return unbiased(kernel(first, first), kernel(second, second), kernel(first, second))


def unbiased(within_first: Tensor, within_second: Tensor, between: Tensor) -> float:
    """The squared discrepancy of N and N samples from their kernel matrices [N, N], all diagonals left out.

    Leaving out that of `between` too keeps it unbiased where sample i of one set and sample i of the other belong to
    one scene. Raises ValueError below two samples. Gretton et al. 2012, equation 4.
    """
    count = len(between)
    if count < 2 or not within_first.shape == within_second.shape == between.shape == (count, count):
        raise ValueError(f"the discrepancy needs two sets of one size, two samples at least; there are {count}")

    def mean(kernel: Tensor) -> Tensor:
        return (kernel.sum() - kernel.trace()) / (count * (count - 1))

    return float(mean(within_first) + mean(within_second) - 2 * mean(between))


def standardised(features: Tensor, true: Tensor) -> Tensor:
    """Features [N, D] less the mean of true ones, over their spread: one number for all D, so that shapes are kept.

    KID's kernel is made for features of about unit size, and its value would else be in units of the reader's own.
    """
    centre = true.mean(dim=0)
    spread = (true - centre).pow(2).mean().sqrt().clamp(min=1e-12)
    return (features - centre) / spread


def median_distance(features: Tensor) -> float:
    """The median distance of two different rows of [N, D], the width of `mmd`. Gretton et al. 2012, section 8.

    It is taken of renders alone, so that models are measured with the same kernel.
    """
    rows, columns = torch.triu_indices(len(features), len(features), offset=1)
    apart = torch.cdist(features.double(), features.double())[rows, columns]
    return max(float(apart.median()), 1e-12)
