"""Quantiles of the beta distribution, for the spacing that is laid along them."""

import math

FRACTION_TERMS = 300  # far more than the continued fraction needs at float64 for shapes near 1
BISECTIONS = 200  # float64 is exhausted after about 60 away from 0; more only help near it


def beta_quantile(probability: float, alpha: float, beta: float) -> float:
    """The x in [0, 1] below which a beta(alpha, beta) variable falls with this probability, by bisection."""
    if probability <= 0.0:
        return 0.0
    if probability >= 1.0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if beta_cumulative(middle, alpha, beta) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_cumulative(x: float, alpha: float, beta: float) -> float:
    """The regularised incomplete beta function I_x(alpha, beta); DLMF 8.17.22."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (alpha + 1) / (alpha + beta + 2):  # the fraction converges fast only below the mean
        return 1.0 - beta_cumulative(1.0 - x, beta, alpha)
    log_beta = math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
    front = math.exp(alpha * math.log(x) + beta * math.log1p(-x) - log_beta) / alpha
    return front / _continued_fraction(x, alpha, beta)


def _continued_fraction(x: float, alpha: float, beta: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), evaluated from its far end."""
    value = 1.0
    for term in range(FRACTION_TERMS, 0, -1):
        half = term // 2
        if term % 2:
            numerator = -(alpha + half) * (alpha + beta + half) * x / ((alpha + 2 * half) * (alpha + 2 * half + 1))
        else:
            numerator = half * (beta - half) * x / ((alpha + 2 * half - 1) * (alpha + 2 * half))
        value = 1.0 + numerator / value
    return value
