"""Noise schedules: their tables, the way between timestep and level, and diffusers' configs of them."""

import math
from itertools import pairwise
from typing import Any

import diffusers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion.schedule import (
    NoiseSchedule,
    from_betas,
    from_scheduler_config,
    linear,
    scaled_linear,
    squared_cosine,
)
from sfumato.errors import ConfigError

SD = scaled_linear()


def test_stable_diffusions_ends_are_the_published_ones() -> None:
    assert len(SD) == 1000
    assert SD.sigmas[0] == pytest.approx(0.0291671582, rel=1e-7)  # the ends of Sabour et al. 2024's tables
    assert SD.sigmas[-1] == pytest.approx(14.6146412293, rel=1e-7)


def test_linear_schedule_is_ho_et_al() -> None:
    betas = [0.0001 + (0.02 - 0.0001) * t / 999 for t in range(1000)]
    product = 1.0
    for beta, alphas_cumprod in zip(betas, linear().alphas_cumprod, strict=True):
        product *= 1 - beta
        assert alphas_cumprod == pytest.approx(product, rel=1e-12)


def test_squared_cosine_follows_nichol_and_dhariwal_until_its_cap() -> None:
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    found = squared_cosine().alphas_cumprod
    for t in range(990):  # the cap of beta at 0.999 only binds in the last steps
        assert found[t] == pytest.approx(f[t + 1] / f[0], rel=1e-10)


@pytest.mark.parametrize(
    "extra",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True},
        {"trained_betas": [0.001, 0.01, 0.1, 0.2]},
        {"num_train_timesteps": 77},
    ],
    ids=str,
)
def test_tables_equal_diffusers(extra: dict[str, Any]) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**extra)
    expected = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    found = from_scheduler_config(extra | {"_class_name": "EulerDiscreteScheduler"}).sigmas
    # its 1 - alphas_cumprod is float32: 6e-8 of a difference that is 1e-4 and less at t = 0, halved by the root;
    # after the rescale the product itself nears 0 and loses digits too
    tolerance = 2e-3 if "rescale_betas_zero_snr" in extra else 4e-4
    assert found == pytest.approx(expected.tolist(), rel=tolerance)


CLASSES = (
    "DDIM DDPM PNDM EulerDiscrete EulerAncestralDiscrete HeunDiscrete LMSDiscrete KDPM2Discrete "
    "KDPM2AncestralDiscrete DPMSolverSDE DPMSolverMultistep DPMSolverSinglestep UniPCMultistep DEISMultistep LCM TCD"
)


@pytest.mark.parametrize("name", CLASSES.split())
def test_every_class_has_its_own_defaults(name: str) -> None:
    config = {"_class_name": f"{name}Scheduler", "rescale_betas_zero_snr": False}
    expected = getattr(diffusers, f"{name}Scheduler")().alphas_cumprod
    assert from_scheduler_config(config).alphas_cumprod == pytest.approx(expected.tolist(), rel=1e-4)


def test_classes_that_do_not_read_the_rescale_are_left_alone() -> None:
    config = {"_class_name": "PNDMScheduler", "rescale_betas_zero_snr": True}
    assert from_scheduler_config(config) == linear()


@pytest.mark.parametrize("schedule", [SD, linear(), squared_cosine(), scaled_linear(zero_terminal_snr=True)])
@pytest.mark.parametrize("rule", ["log", "linear", "round", "truncate", "nearest"])
def test_table_entries_have_exact_integer_timesteps(schedule: NoiseSchedule, rule: Any) -> None:
    assert [schedule.timestep(sigma, rule) for sigma in schedule.sigmas] == [float(t) for t in range(len(schedule))]
    assert [schedule.sigma(t) for t in range(len(schedule))] == list(schedule.sigmas)


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=999))
def test_timestep_undoes_sigma(timestep: float) -> None:
    assert SD.timestep(SD.sigma(timestep)) == pytest.approx(timestep, abs=1e-9)
    assert SD.timestep(SD.sigma(timestep, "linear"), "linear") == pytest.approx(timestep, abs=1e-9)


@settings(deadline=None)
@given(st.floats(min_value=0.001, max_value=100))
def test_rules_agree_to_the_neighbouring_entries(sigma: float) -> None:
    exact = SD.timestep(sigma)
    assert 0 <= exact <= 999
    assert SD.timestep(sigma, "truncate") == math.floor(exact)
    assert abs(SD.timestep(sigma, "round") - exact) <= 0.5
    assert abs(SD.timestep(sigma, "linear") - exact) < 0.1
    assert SD.nearest(sigma) == float(np.abs(np.log(SD.sigmas) - math.log(sigma)).argmin())


def test_levels_beyond_the_table_have_its_end_timesteps() -> None:
    for rule in ("log", "linear", "round", "truncate", "nearest"):
        assert SD.timestep(0.0, rule) == 0.0
        assert SD.timestep(1e-6, rule) == 0.0
        assert SD.timestep(100.0, rule) == 999.0
    assert SD.sigma(-1) == SD.sigmas[0]
    assert SD.sigma(2000) == SD.sigmas[-1]


def test_zero_terminal_snr_is_lin_et_al_with_diffusers_clamp() -> None:
    plain, rescaled = SD.alphas_cumprod, scaled_linear(zero_terminal_snr=True).alphas_cumprod
    first, last = math.sqrt(plain[0]), math.sqrt(plain[-1])
    for t in range(999):
        expected = ((math.sqrt(plain[t]) - last) * first / (first - last)) ** 2
        assert rescaled[t] == pytest.approx(expected, rel=1e-9)
    assert rescaled[-1] == pytest.approx(2.0**-24, rel=1e-12)


def test_tables_increase() -> None:
    for schedule in (SD, linear(), squared_cosine(), scaled_linear(zero_terminal_snr=True)):
        assert all(low < high for low, high in pairwise(schedule.sigmas))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"beta_start": "0.1"}, "beta_start"),
        ({"trained_betas": "many"}, "trained_betas"),
        ({"trained_betas": []}, "empty"),
        ({"trained_betas": [0.1, 0.0]}, "increase"),
        ({"trained_betas": [0.1, 1.0]}, "finite"),
    ],
    ids=str,
)
def test_a_wrong_config_is_refused_by_name(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_scheduler_config(config)


def test_betas_of_one_are_refused_without_a_warning() -> None:
    with pytest.raises(ConfigError, match="finite"):
        from_betas([0.5, 1.0])
