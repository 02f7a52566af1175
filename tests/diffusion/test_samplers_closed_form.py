"""Samplers against closed forms: normal data, mixtures and single points have exact denoisers and exact paths."""

import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from statistics import NormalDist

import pytest
import torch
from torch import Tensor
from toys import gaussian, gaussian_flow, mixture, silent, start

from sfumato.diffusion.samplers import SAMPLERS, TAKES_ETA, Step
from sfumato.diffusion.schedule import scaled_linear

Run = Callable[..., Iterator[Step]]

DETERMINISTIC: dict[str, tuple[Run, float]] = {
    "euler": (SAMPLERS["euler"], 1),
    "heun": (SAMPLERS["heun"], 2),
    "dpm2": (SAMPLERS["dpm2"], 2),
    "dpmpp_2s": (partial(SAMPLERS["dpmpp_2s_ancestral"], eta=0.0), 2),
    "dpmpp_sde without noise": (partial(SAMPLERS["dpmpp_sde"], eta=0.0), 2),
    "dpmpp_2m": (SAMPLERS["dpmpp_2m"], 2),
    "dpmpp_2m heun": (partial(SAMPLERS["dpmpp_multistep"], solver="heun"), 2),
    "dpmpp_2m_sde without noise": (partial(SAMPLERS["dpmpp_2m_sde"], eta=0.0), 2),
    # one first-order step at the start leaves an error of h^2, whatever the order of the others
    "dpmpp_3m_sde without noise": (partial(SAMPLERS["dpmpp_3m_sde"], eta=0.0), 2),
    "dpmpp_multistep 1": (partial(SAMPLERS["dpmpp_multistep"], order=1), 1),
    "dpmpp_singlestep 2": (partial(SAMPLERS["dpmpp_singlestep"], order=2, lower_order_final=False), 2),
    "dpmpp_singlestep 2 heun": (
        partial(SAMPLERS["dpmpp_singlestep"], order=2, solver="heun", lower_order_final=False),
        2,
    ),
    "dpmpp_singlestep 3": (partial(SAMPLERS["dpmpp_singlestep"], order=3, lower_order_final=False), 3),
    "dpmpp_singlestep 3 heun": (
        partial(SAMPLERS["dpmpp_singlestep"], order=3, solver="heun", lower_order_final=False),
        3,
    ),
    "dpm_multistep 1": (partial(SAMPLERS["dpm_multistep"], order=1), 1),
    "dpm_multistep 2": (SAMPLERS["dpm_multistep"], 2),
    "dpm_multistep 2 heun": (partial(SAMPLERS["dpm_multistep"], solver="heun"), 2),
    "dpm_multistep 3": (partial(SAMPLERS["dpm_multistep"], order=3), 2),
    "lms": (SAMPLERS["lms"], 2),
    "deis 1": (partial(SAMPLERS["deis"], order=1), 1),
    "deis 2": (SAMPLERS["deis"], 2),
    "deis 3": (partial(SAMPLERS["deis"], order=3), 2),
    # the corrector raises the order by one, save in the last step
    "unipc 1": (partial(SAMPLERS["unipc"], order=1), 2),
    "unipc 2": (partial(SAMPLERS["unipc"], lower_order_final=False), 3),
    "unipc 2 bh1": (partial(SAMPLERS["unipc"], variant="bh1", lower_order_final=False), 3),
    "unipc 3": (partial(SAMPLERS["unipc"], order=3, lower_order_final=False), 3.8),
    "unipc 2 with a first-order end": (SAMPLERS["unipc"], 2),
}

STOCHASTIC: dict[str, tuple[Run, float]] = {
    "euler_ancestral": (SAMPLERS["euler_ancestral"], 1),
    "ddim at eta 0.5": (partial(SAMPLERS["euler"], eta=0.5), 1),
    "dpm2_ancestral": (SAMPLERS["dpm2_ancestral"], 2),
    "dpmpp_2s_ancestral": (SAMPLERS["dpmpp_2s_ancestral"], 2),
    "dpmpp_sde": (SAMPLERS["dpmpp_sde"], 2),
    "dpmpp_sde at eta 0.5": (partial(SAMPLERS["dpmpp_sde"], eta=0.5), 2),
    "dpmpp_2m_sde": (SAMPLERS["dpmpp_2m_sde"], 2),
    "dpmpp_2m_sde at eta 0.5": (partial(SAMPLERS["dpmpp_2m_sde"], eta=0.5), 2),
    "dpmpp_2m_sde_heun": (SAMPLERS["dpmpp_2m_sde_heun"], 2),
    "dpmpp_3m_sde": (SAMPLERS["dpmpp_3m_sde"], 2),
    # the noise of the whole block is drawn anew, so that the look-ahead's noise only disturbs
    "dpmpp_singlestep 2 sde": (partial(SAMPLERS["dpmpp_singlestep"], eta=1.0), 1),
    "dpmpp_singlestep 3 sde": (partial(SAMPLERS["dpmpp_singlestep"], eta=1.0, order=3, solver="heun"), 1),
    "dpm_multistep sde": (partial(SAMPLERS["dpm_multistep"], stochastic=True), 2),
    "dpm_multistep sde heun": (partial(SAMPLERS["dpm_multistep"], stochastic=True, solver="heun"), 2),
}
DISTILLED: dict[str, Run] = {
    "lcm": SAMPLERS["lcm"],
    "tcd": SAMPLERS["tcd"],
    "tcd at 1": partial(SAMPLERS["tcd"], eta=1.0),
}

MEAN, DEVIATION = 0.7, 0.4
HIGH, LOW = 8.0, 0.1


def log_levels(steps: int, high: float = HIGH, low: float = LOW) -> list[float]:
    return [high * (low / high) ** (index / steps) for index in range(steps + 1)]


def last(steps: Iterator[Step]) -> Step:
    return list(steps)[-1]


def flow_error(run: Run, levels: list[float]) -> float:
    """The distance from the exact end of the probability-flow ODE of normal data."""
    x = start() * levels[0]
    exact = gaussian_flow(x, levels[0], levels[-1], MEAN, DEVIATION)
    return float((last(run(gaussian(MEAN, DEVIATION), x, levels, silent)).x - exact).abs().max())


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_falls_with_the_order_of_the_method(name: str) -> None:
    run, order = DETERMINISTIC[name]
    coarse, fine = flow_error(run, log_levels(96)), flow_error(run, log_levels(192))
    assert math.log2(coarse / fine) >= order - 0.15  # the asymptotic rate, nearly reached
    assert fine < 2e-2


def test_plms_is_of_third_order_on_even_steps() -> None:
    """Its second-order first step leaves an error of h^3; its weights are meant for even steps."""

    def levels(steps: int) -> list[float]:
        return [3.0 - 2.0 * index / steps for index in range(steps + 1)]

    errors = [flow_error(SAMPLERS["plms"], levels(steps)) for steps in (64, 128)]
    assert math.log2(errors[0] / errors[1]) >= 2.85
    assert errors[1] < 1e-5


def test_velocity_averaging_plms_is_of_first_order() -> None:
    run = partial(SAMPLERS["plms"], averaged="v_prediction")
    coarse, fine = flow_error(run, log_levels(96)), flow_error(run, log_levels(192))
    assert 0.8 < math.log2(coarse / fine) < 1.3


def quantile_map(x: Tensor, sigma: float, sigma_next: float, means: tuple[float, ...], deviation: float) -> Tensor:
    """Where the ODE of one-dimensional data takes x: to the same quantile of the next level's distribution."""

    def cumulative(at: float, level: float) -> float:
        spread = math.hypot(deviation, level)
        return sum(NormalDist(mean, spread).cdf(at) for mean in means) / len(means)

    def inverse(probability: float, level: float) -> float:
        low, high = -200.0, 200.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if cumulative(middle, level) < probability else (low, middle)
        return low

    moved = [inverse(cumulative(value, sigma), sigma_next) for value in x.flatten().tolist()]
    return torch.tensor(moved, dtype=x.dtype).reshape(x.shape)


@pytest.mark.parametrize("name", [*DETERMINISTIC, "plms"])
def test_ode_takes_a_mixture_to_its_quantiles(name: str) -> None:
    means, deviation = (-1.0, 1.5), 0.5
    run = SAMPLERS["plms"] if name == "plms" else DETERMINISTIC[name][0]
    x = torch.linspace(-1.2, 1.2, 8, dtype=torch.float64).reshape(1, 2, 2, 2) * HIGH
    exact = quantile_map(x, HIGH, 0.0, means, deviation)
    end = last(run(mixture(means, deviation), x, [*log_levels(300, low=0.005), 0.0], silent))
    # first-order methods keep an error of about 1/300; the last step, from 0.005 to 0, is of first order for all
    assert float((end.x - exact).abs().max()) < (3e-2 if name.endswith(" 1") or name == "euler" else 8e-3)


ALL = {name: run for name, (run, _) in (DETERMINISTIC | STOCHASTIC).items()} | {"plms": SAMPLERS["plms"]} | DISTILLED


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
def test_a_single_point_is_reached_exactly_at_zero(name: str, steps: int) -> None:
    levels = [*log_levels(steps - 1 or 1)[:steps], 0.0]
    end = last(ALL[name](lambda x, sigma: torch.full_like(x, 2.5), start() * HIGH, levels, lambda _: start(3)))
    assert float((end.x - 2.5).abs().max()) < 1e-12


@pytest.mark.parametrize("name", [*DETERMINISTIC, "plms"])
def test_around_a_single_point_the_noise_shrinks_with_the_level(name: str) -> None:
    levels = log_levels(11)
    noise = start()
    for step in ALL[name](lambda x, sigma: torch.full_like(x, 2.5), 2.5 + noise * HIGH, levels, silent):
        assert float((step.x - 2.5 - noise * step.sigma).abs().max()) < 1e-11


def law(
    run: Run, denoise: Callable[[Tensor, float], Tensor], levels: list[float], spread: float
) -> tuple[float, float]:
    """Mean and variance of the end, exactly: with a linear denoiser it is linear in the start and in every draw.

    Each response is found by a run with that one input set to 1. The start has mean MEAN and the given variance.
    """
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    draws: set[int] = set()

    def end(x: Tensor, source: Callable[[int], Tensor]) -> float:
        return float(last(run(denoise, x, levels, source)).x)

    def recorded(draw: int) -> Tensor:
        draws.add(draw)
        return zero

    mean = end(one * MEAN, recorded)
    variance = (end(one * (MEAN + 1), lambda _: zero) - mean) ** 2 * spread
    for known in sorted(draws):
        variance += (end(one * MEAN, lambda draw, known=known: one if draw == known else zero) - mean) ** 2
    return mean, variance


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_reach_the_mean_and_variance_of_the_data(name: str) -> None:
    run, order = STOCHASTIC[name]
    errors = []
    for steps in (48, 96):
        mean, variance = law(run, gaussian(MEAN, DEVIATION), log_levels(steps), DEVIATION**2 + HIGH**2)
        assert mean == pytest.approx(MEAN, abs=1e-12)
        errors.append(abs(variance / (DEVIATION**2 + LOW**2) - 1))
    # 1.8 for methods of second order, 0.75 where the first-order rate is reached only with more steps
    assert math.log2(errors[0] / errors[1]) >= (1.8 if order == 2 else 0.75)
    assert errors[1] < (5e-3 if order == 2 else 0.12)


@pytest.mark.parametrize("name", [name for name in STOCHASTIC | DISTILLED if not name.startswith("dpm_")])
def test_around_a_single_point_the_variance_is_that_of_the_level(name: str) -> None:
    """The noise that is added makes up exactly for the descent beyond the level (save in noise prediction)."""
    for steps in (1, 2, 5, 16):
        levels = log_levels(steps)
        found = law(ALL[name], lambda x, sigma: torch.full_like(x, MEAN), levels, HIGH**2)
        assert found == pytest.approx((MEAN, LOW**2), rel=1e-10)


def test_lcm_on_the_exact_consistency_function_has_the_law_of_the_data_at_every_step() -> None:
    def consistency(x: Tensor, sigma: float) -> Tensor:
        return gaussian_flow(x, sigma, 0.0, MEAN, DEVIATION)

    for steps in (1, 2, 4):
        found = law(SAMPLERS["lcm"], consistency, [*log_levels(steps)[:-1], 0.0], DEVIATION**2 + HIGH**2)
        assert found == pytest.approx((MEAN, DEVIATION**2), rel=1e-12)


def test_lcm_boundary_blends_as_the_paper_has_it() -> None:
    schedule = scaled_linear()
    x = start() * schedule.sigmas[259]
    levels = [schedule.sigmas[259], 0.0]
    step = last(SAMPLERS["lcm"](lambda x, sigma: x * 0, x, levels, silent, schedule=schedule))
    expected = 0.25 / (2590.0**2 + 0.25) / math.sqrt(1 + schedule.sigmas[259] ** 2)  # c_skip at 10 times t = 259
    assert torch.allclose(step.x, x * expected, rtol=1e-12, atol=0)


def test_tcd_without_noise_is_euler() -> None:
    levels = log_levels(7)
    x, denoise = start() * HIGH, mixture((-1.0, 1.0), 0.3)
    ours = [step.x for step in SAMPLERS["tcd"](denoise, x, levels, silent, eta=0.0)]
    euler = [step.x for step in SAMPLERS["euler"](denoise, x, levels, silent)]
    for found, expected in zip(ours, euler, strict=True):
        assert torch.allclose(found, expected, rtol=1e-14, atol=1e-14)


def test_ddim_at_eta_is_song_equation_12() -> None:
    """Euler with eta in our scale, step by step against the paper's formula in variance-preserving scale."""
    schedule = scaled_linear()
    timesteps = [901, 601, 301, 1]
    denoise = mixture((-1.0, 0.5), 0.4)
    x = start() * math.sqrt(1 + schedule.sigmas[901] ** 2)
    levels = [schedule.sigmas[t] for t in timesteps]
    steps = SAMPLERS["euler"](denoise, x, levels, lambda draw: start(10 + draw), eta=0.7)
    latent = x / math.sqrt(1 + levels[0] ** 2)
    for (t, t_next), step in zip(pairwise(timesteps), steps, strict=True):
        alpha, alpha_next = schedule.alphas_cumprod[t], schedule.alphas_cumprod[t_next]
        clean = denoise(latent / math.sqrt(alpha), schedule.sigmas[t])
        epsilon = (latent - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha)
        std = 0.7 * math.sqrt((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next))
        latent = (
            math.sqrt(alpha_next) * clean + math.sqrt(1 - alpha_next - std**2) * epsilon + std * start(10 + step.index)
        )
        assert torch.allclose(step.x * math.sqrt(alpha_next), latent, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_samplers_with_a_share_of_fresh_noise_are_listed(name: str) -> None:
    assert ("eta" in inspect.signature(SAMPLERS[name]).parameters) == (name in TAKES_ETA)
