"""Spacings: their counts, their order, and the references that each is taken from."""

import importlib.util
import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from diffusers.schedulers import AysSchedules
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion.beta_distribution import beta_quantile
from sfumato.diffusion.schedule import NoiseSchedule, linear, scaled_linear
from sfumato.diffusion.spacing import (
    LAID_IN_TIMESTEPS,
    PLAIN,
    SPACINGS,
    Grid,
    karras,
    leading,
    linspace,
    polyexponential,
    tail,
    trailing,
)
from sfumato.errors import RequestError

SD = scaled_linear()
TABLE = np.array(SD.sigmas)


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize("schedule", [SD, linear(), scaled_linear(timesteps=100)], ids=["sd", "ddpm", "short"])
def test_steps_plus_one_levels_decrease_to_the_end(name: str, schedule: NoiseSchedule) -> None:
    for steps in [*range(1, 12), 20, 25, 33, 50, 60, 99, 100]:
        for end in (0.0, schedule.sigmas[0] / 2):
            levels = SPACINGS[name](schedule, steps, Grid(end=end))
            assert len(levels) == steps + 1
            assert levels[-1] == end
            assert all(high > low for high, low in pairwise(levels))


@pytest.mark.parametrize("name", SPACINGS)
@settings(max_examples=20, deadline=None)  # a thousand levels take a while on a busy machine
@given(steps=st.integers(1, 1000), offset=st.integers(0, 1), drop=st.booleans(), whole=st.booleans())
def test_every_grid_gives_levels_that_never_rise(name: str, steps: int, offset: int, drop: bool, whole: bool) -> None:
    grid = Grid(end=SD.sigmas[0], offset=offset, drop_lowest=drop, whole_timesteps=whole)
    levels = SPACINGS[name](SD, steps, grid)
    assert len(levels) == steps + 1
    assert all(math.isfinite(level) and level > 0 for level in levels)
    assert all(high > low for high, low in pairwise(levels[:-1]))
    assert levels[-1] <= levels[-2]


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_is_an_error_that_names_the_field(name: str, steps: int) -> None:
    with pytest.raises(RequestError, match=f"steps is {steps}") as caught:
        SPACINGS[name](SD, steps, PLAIN)
    assert caught.value.field == "steps"


def test_more_steps_than_timesteps_is_an_error_for_rules_laid_in_timesteps() -> None:
    with pytest.raises(RequestError, match="1000"):
        leading(SD, 1001)
    assert len(karras(SD, 1001)) == 1002


@pytest.mark.parametrize("name", SPACINGS)
def test_the_rules_laid_in_timesteps_are_listed(name: str) -> None:
    schedule, refused = scaled_linear(timesteps=100), False
    try:
        SPACINGS[name](schedule, 101, PLAIN)
    except RequestError:
        refused = True
    assert refused == (name in LAID_IN_TIMESTEPS)


def test_leading_with_offset_is_ddims_grid() -> None:
    assert leading(SD, 4, Grid(offset=1)) == [SD.sigmas[t] for t in (751, 501, 251, 1)] + [0.0]


def test_trailing_starts_at_the_last_timestep() -> None:
    assert trailing(SD, 4) == [SD.sigmas[t] for t in (999, 749, 499, 249)] + [0.0]


def test_linspace_includes_both_ends() -> None:
    assert linspace(SD, 4) == [SD.sigmas[t] for t in (999, 666, 333, 0)] + [0.0]


def load_k_diffusion_spacings() -> dict[str, object]:
    """The spacing functions out of k-diffusion's source: its package cannot be imported everywhere."""
    found = importlib.util.find_spec("k_diffusion")
    assert found is not None and found.submodule_search_locations is not None
    source = Path(found.submodule_search_locations[0], "sampling.py").read_text()
    start, end = source.index("def append_zero"), source.index("def get_sigmas_vp")
    names: dict[str, object] = {"torch": torch, "math": math}
    exec(compile(source[start:end], "k_diffusion", "exec"), names)
    return names


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_levels_laid_in_sigma_equal_k_diffusion(steps: int) -> None:
    theirs = load_k_diffusion_spacings()
    low, high = SD.sigmas[0], SD.sigmas[-1]
    for name, function in (("karras", "get_sigmas_karras"), ("exponential", "get_sigmas_exponential")):
        expected = theirs[function](steps, low, high)  # type: ignore[operator]
        assert SPACINGS[name](SD, steps, PLAIN) == pytest.approx(expected.tolist(), rel=3e-6)  # theirs is float32
    expected = theirs["get_sigmas_polyexponential"](steps, low, high, rho=2.0)  # type: ignore[operator]
    assert polyexponential(SD, steps, rho=2.0) == pytest.approx(expected.tolist(), rel=3e-6)


@pytest.mark.parametrize("steps", [1, 4, 10, 20, 30])
def test_normal_equals_k_diffusions_uniform_timesteps(steps: int) -> None:
    times = np.linspace(999, 0, steps)
    expected = np.exp(np.interp(times, np.arange(1000), np.log(TABLE)))
    assert SPACINGS["normal"](SD, steps, PLAIN)[:-1] == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 4, 10, 20, 30])
def test_sgm_uniform_leaves_out_the_last_of_one_timestep_more(steps: int) -> None:
    times = np.linspace(999, 0, steps + 1)[:-1]
    expected = np.exp(np.interp(times, np.arange(1000), np.log(TABLE)))
    assert SPACINGS["sgm_uniform"](SD, steps, PLAIN)[:-1] == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 20, 1000])
def test_simple_equals_comfyuis_rule(steps: int) -> None:
    expected = [TABLE[-(1 + int(x * len(TABLE) / steps))] for x in range(steps)]
    assert SPACINGS["simple"](SD, steps, PLAIN)[:-1] == expected


@pytest.mark.parametrize("steps", [1, 8, 20, 25, 50, 1000])
def test_ddim_uniform_equals_comfyuis_rule_where_that_has_as_many_steps(steps: int) -> None:
    expected = list(TABLE[1 :: 1000 // steps][::-1])
    if steps == 1000:  # there is no timestep 1000, so the last of 1000 steps begins at timestep 0
        expected.append(TABLE[0])
    assert SPACINGS["ddim_uniform"](SD, steps, PLAIN)[:-1] == expected


@pytest.mark.parametrize("steps", [1, 4, 10, 20, 30])
def test_beta_equals_comfyuis_rule(steps: int) -> None:
    parts = 1 - np.linspace(0, 1, steps, endpoint=False)
    expected = TABLE[np.rint(scipy.stats.beta.ppf(parts, 0.6, 0.6) * 999).astype(int)]
    assert SPACINGS["beta"](SD, steps, PLAIN)[:-1] == expected.tolist()


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.6), (0.5, 2.0), (3.0, 1.0), (1.0, 1.0)])
def test_beta_quantiles_equal_scipys(alpha: float, beta: float) -> None:
    for probability in np.linspace(0, 1, 101):
        expected = scipy.stats.beta.ppf(probability, alpha, beta)
        assert beta_quantile(float(probability), alpha, beta) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("steps", [2, 10, 25])
def test_kl_optimal_is_even_in_the_arc_tangent(steps: int) -> None:
    part = np.arange(steps) / (steps - 1)
    expected = np.tan(part * np.arctan(TABLE[0]) + (1 - part) * np.arctan(TABLE[-1]))
    assert SPACINGS["kl_optimal"](SD, steps, PLAIN)[:-1] == pytest.approx(expected.tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "table"),
    [("align_your_steps", "StableDiffusionSigmas"), ("align_your_steps_sdxl", "StableDiffusionXLSigmas")],
)
def test_align_your_steps_equals_diffusers_tables(name: str, table: str) -> None:
    assert SPACINGS[name](SD, 10, PLAIN) == pytest.approx(AysSchedules[table])


@pytest.mark.parametrize("steps", [1, 5, 20, 33])
def test_align_your_steps_interpolates_log_linearly(steps: int) -> None:
    table = [*AysSchedules["StableDiffusionSigmas"][:-1], 0.029]
    places = np.linspace(0, 10, steps + 1)
    expected = np.exp(np.interp(places, np.arange(11), np.log(table)))
    expected[-1] = 0.0
    assert SPACINGS["align_your_steps"](SD, steps, PLAIN) == pytest.approx(expected.tolist(), rel=1e-12)


def test_karras_ends_are_exact_table_entries() -> None:
    for steps in range(2, 60):
        levels = karras(SD, steps)
        assert (levels[0], levels[-2]) == (SD.sigmas[-1], SD.sigmas[0])


@pytest.mark.parametrize(("strength", "steps"), [(0.0, 0), (0.04, 0), (0.05, 1), (0.5, 10), (0.8, 16), (1.0, 20)])
def test_tail_is_the_last_int_steps_times_strength_steps(strength: float, steps: int) -> None:
    assert tail(partial(karras, SD), 20, strength) == karras(SD, 20)[20 - steps :]


@pytest.mark.parametrize(("strength", "steps"), [(0.0, 1), (0.04, 1), (0.05, 2), (0.5, 11), (0.75, 16), (1.0, 20)])
def test_tail_by_the_rule_of_a1111_is_one_step_more_and_at_most_all(strength: float, steps: int) -> None:
    """sd_samplers_common.setup_img2img_steps: 20 steps at 0.5 are 11."""
    assert tail(partial(karras, SD), 20, strength, "a1111") == karras(SD, 20)[20 - steps :]


@pytest.mark.parametrize(("strength", "laid"), [(0.05, 400), (0.5, 40), (0.3, 66), (0.75, 26), (1.0, 20)])
def test_tail_by_the_rule_of_comfyui_is_as_many_steps_as_asked_for(strength: float, laid: int) -> None:
    assert tail(partial(karras, SD), 20, strength, "whole") == karras(SD, laid)[laid - 20 :]


@pytest.mark.parametrize("strength", [-0.1, 1.01, math.nan])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(RequestError, match="strength") as caught:
        tail(partial(karras, SD), 20, strength)
    assert caught.value.field == "strength"
