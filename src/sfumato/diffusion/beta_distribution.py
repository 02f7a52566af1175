"""Quantiles of the beta distribution, for the spacings that are laid along them."""

import math

TERMS = 500  # a limit that shapes near 1 never come near: about 20 terms reach float64's precision
ITERATIONS = 200  # likewise: Newton's method needs about 6, bisection alone about 60
TINY = 1e-300


def beta_quantile(probability: float, alpha: float, beta: float) -> float:
    """The x in [0, 1] below which a beta(alpha, beta) variable falls with this probability.

    Newton's method, kept inside a bracket by bisection.
    """
    if probability <= 0.0:
        return 0.0
    if probability >= 1.0:
        return 1.0
    if alpha == beta and probability == 0.5:
        return 0.5  # exactly, so that what is rounded from it does not hang on the last digit
    low, high, x = 0.0, 1.0, 0.5
    for _ in range(ITERATIONS):
        excess = beta_cumulative(x, alpha, beta) - probability
        if excess > 0:
            high = x
        else:
            low = x
        step = excess / beta_density(x, alpha, beta)
        proposed = x - step if low < x - step < high else (low + high) / 2
        if abs(proposed - x) <= 1e-16 * proposed:
            break
        x = proposed
    return x


def beta_density(x: float, alpha: float, beta: float) -> float:
    """The density at an x strictly between 0 and 1."""
    return math.exp((alpha - 1) * math.log(x) + (beta - 1) * math.log1p(-x) - _log_beta(alpha, beta))


def beta_cumulative(x: float, alpha: float, beta: float) -> float:
    """The regularised incomplete beta function I_x(alpha, beta); DLMF 8.17.22."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (alpha + 1) / (alpha + beta + 2):  # the fraction converges fast only below the mean
        return 1.0 - beta_cumulative(1.0 - x, beta, alpha)
    front = math.exp(alpha * math.log(x) + beta * math.log1p(-x) - _log_beta(alpha, beta)) / alpha
    return front * _continued_fraction(x, alpha, beta)


def _log_beta(alpha: float, beta: float) -> float:
    return math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)


def _continued_fraction(x: float, alpha: float, beta: float) -> float:
    """1 / (1 + d1 / (1 + d2 / (1 + ...))) by Lentz's method: the denominator grows by one ratio a term."""
    upper, lower, value = 1.0, 0.0, 1.0
    for term in range(1, TERMS):
        half = term // 2
        if term % 2:
            numerator = -(alpha + half) * (alpha + beta + half) * x / ((alpha + 2 * half) * (alpha + 2 * half + 1))
        else:
            numerator = half * (beta - half) * x / ((alpha + 2 * half - 1) * (alpha + 2 * half))
        upper = (1.0 + numerator / upper) or TINY
        lower = 1.0 / ((1.0 + numerator * lower) or TINY)
        value *= upper * lower
        if abs(upper * lower - 1.0) < 1e-16:
            break
    return 1.0 / value
