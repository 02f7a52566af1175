"""The estimators of KID and MMD against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from sfumato.evaluate.distances import kid, median_distance, mmd, standardised, unbiased

WIDTH = 1.3


def normal(count: int, mean: float, seed: int) -> Tensor:
    """Samples [count, 1] of a normal distribution of variance 1."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, generator=draw, dtype=torch.float64) + mean


def cubic(first: float, second: float) -> float:
    """E (1 + x y)^3 of independent normal x and y with these means and variance 1, from their first three moments."""
    moments = [(1.0, m, m**2 + 1, m**3 + 3 * m) for m in (first, second)]
    return sum(math.comb(3, k) * moments[0][k] * moments[1][k] for k in range(4))


def gaussian(apart: float) -> float:
    """E exp(-(x - y)^2 / (2 w^2)) of independent normal x and y of variance 1, their means so far apart."""
    return WIDTH / math.sqrt(WIDTH**2 + 2) * math.exp(-(apart**2) / (2 * (WIDTH**2 + 2)))


def repeated(estimate: object, count: int, repeats: int, mean: float) -> tuple[float, float]:
    """The mean of an estimate over many small samples, and its standard error."""
    found = torch.tensor(
        [estimate(normal(count, 0, 2 * i), normal(count, mean, 2 * i + 1)) for i in range(repeats)]  # type: ignore[operator]
    )
    return float(found.mean()), float(found.std() / repeats**0.5)


@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_kid_of_small_samples_is_the_population_value_on_average(mean: float) -> None:
    found, error = repeated(kid, 12, 1500, mean)
    expected = cubic(0, 0) + cubic(mean, mean) - 2 * cubic(0, mean)
    assert abs(found - expected) < 4 * error


@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_mmd_of_small_samples_is_the_population_value_on_average(mean: float) -> None:
    found, error = repeated(lambda a, b: mmd(a, b, WIDTH), 12, 1500, mean)
    assert abs(found - 2 * (gaussian(0) - gaussian(mean))) < 4 * error


def test_mmd_of_large_samples_is_near_the_population_value() -> None:
    expected = 2 * (gaussian(0) - gaussian(0.7))
    assert mmd(normal(2000, 0, 1), normal(2000, 0.7, 2), WIDTH) == pytest.approx(expected, abs=0.01)


def test_two_points_each_by_hand() -> None:
    """Of x = 0, 2 and y = 1, 3: k(0, 2) + k(1, 3) - k(0, 3) - k(2, 1), the diagonal of k(x, y) left out."""
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    assert kid(x, y) == pytest.approx(1**3 + 4**3 - 1**3 - 3**3)

    def k(apart: float) -> float:
        return math.exp(-(apart**2) / (2 * WIDTH**2))

    assert mmd(x, y, WIDTH) == pytest.approx(2 * k(2) - k(3) - k(1))


def test_a_set_is_at_no_distance_from_itself() -> None:
    x = normal(30, 0, 3)
    assert kid(x, x) == pytest.approx(0, abs=1e-12)
    assert mmd(x, x, WIDTH) == pytest.approx(0, abs=1e-12)


def test_sets_that_share_nothing_are_almost_two_apart() -> None:
    x = torch.zeros(5, 3)
    assert mmd(x, x + 100, WIDTH) == pytest.approx(2)


def test_distances_are_symmetric_and_do_not_depend_on_the_order() -> None:
    x, y, order = normal(9, 0, 4), normal(9, 1, 5), torch.randperm(9, generator=torch.Generator().manual_seed(6))
    for measure in (kid, lambda a, b: mmd(a, b, WIDTH)):
        assert measure(x, y) == pytest.approx(measure(y, x))
        assert measure(x[order], y[order]) == pytest.approx(measure(x, y))


def test_one_picture_has_no_distance() -> None:
    with pytest.raises(ValueError, match="two samples"):
        unbiased(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1))


def test_the_width_is_the_median_of_all_pairs() -> None:
    assert median_distance(torch.tensor([[0.0], [1.0], [3.0]])) == 2  # of 1, 2 and 3


def test_standardised_features_do_not_depend_on_the_readers_units() -> None:
    x, y = torch.randn(8, 5, generator=torch.Generator().manual_seed(7)), torch.ones(8, 5)
    assert torch.allclose(standardised(y, x), standardised(100 * y + 3, 100 * x + 3), atol=1e-5)  # float32 near 100
    assert standardised(x, x).pow(2).mean() == pytest.approx(1)
