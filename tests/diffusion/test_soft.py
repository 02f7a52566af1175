"""Inpainting with grey masks: the published algorithms step by step, and black and white as before."""

import math
from itertools import pairwise

import pytest
import torch
from toys import mixture, network, start

from sfumato.diffusion.denoiser import Denoise, denoiser
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.schedule import scaled_linear
from sfumato.diffusion.soft import changed, differential, middle_mean, soft
from sfumato.diffusion.spacing import karras
from sfumato.diffusion.wrappers import inpaint

SD = scaled_linear()
DENOISE = denoiser(network, SD, "epsilon")
SIGMAS = karras(SD, 8)
KNOWN, NOISE = start(5), start(6)
STRENGTHS = torch.tensor([[0.0, 0.125, 0.3], [0.5, 0.55, 0.9], [0.99, 1.0, 0.7]], dtype=torch.float64)[None, None]
BINARY = (STRENGTHS > 0.5).double()
NUMBERS = {"schedule_bias": 1.0, "preservation_strength": 0.5, "transition_contrast_boost": 4.0}


def run(sampler: str, denoise: Denoise, x: torch.Tensor) -> list[torch.Tensor]:
    return [step.x for step in SAMPLERS[sampler](denoise, x, SIGMAS, lambda index: start(100 + index))]


def test_differential_inpainting_is_the_communitys_loop() -> None:
    """Before each step what is above the threshold is the start picture with the noise of that level."""
    kept = 1 - STRENGTHS
    steps = len(SIGMAS) - 1
    x = KNOWN + SIGMAS[0] * NOISE
    found = run("euler", differential(DENOISE, KNOWN, STRENGTHS, NOISE, SIGMAS), x)
    for index, (sigma, sigma_next) in enumerate(pairwise(SIGMAS)):
        if index > 0:
            mask = (kept > index / steps).double()
            x = (KNOWN + sigma * NOISE) * mask + x * (1 - mask)
        denoised = DENOISE(x, sigma)
        x = denoised + (x - denoised) * (sigma_next / sigma)
        if sigma_next > 0:  # of what is held the loop shows the picture after the next step only
            free = (kept <= (index + 1) / steps).expand_as(x)
            assert torch.allclose(found[index][free], x[free], rtol=0, atol=1e-12)
    drawn = (STRENGTHS > 0).expand_as(x)
    assert torch.allclose(found[-1][drawn], x[drawn], rtol=0, atol=1e-12)
    assert torch.equal(found[-1][~drawn], KNOWN[~drawn])  # which the loop leaves to its last step


def test_a_cell_is_held_for_the_part_that_its_strength_leaves() -> None:
    seen: list[torch.Tensor] = []

    def record(x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append((x == KNOWN + sigma * NOISE)[0, 0])
        return DENOISE(x, sigma)

    run("euler", differential(record, KNOWN, STRENGTHS, NOISE, SIGMAS), NOISE * SIGMAS[0])
    held = torch.stack(seen).sum(0)
    assert torch.equal(held, torch.tensor([[8, 7, 6], [4, 4, 1], [1, 0, 3]]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_black_and_white_are_plain_inpainting_in_every_sampler(sampler: str) -> None:
    x = NOISE * SIGMAS[0]
    expected = run(sampler, inpaint(DENOISE, KNOWN, BINARY, NOISE), x)
    for denoise in (
        differential(DENOISE, KNOWN, BINARY, NOISE, SIGMAS),
        soft(DENOISE, KNOWN, BINARY, NOISE, **NUMBERS),
    ):
        for ours, theirs in zip(run(sampler, denoise, x), expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_white_alone_changes_nothing_and_black_alone_keeps_all_in_every_sampler(sampler: str) -> None:
    x = NOISE * SIGMAS[0]
    ones, zeros = torch.ones_like(STRENGTHS), torch.zeros_like(STRENGTHS)
    plain = run(sampler, DENOISE, x)[-1]
    assert torch.equal(run(sampler, differential(DENOISE, KNOWN, ones, NOISE, SIGMAS), x)[-1], plain)
    assert torch.equal(run(sampler, soft(DENOISE, KNOWN, ones, NOISE, **NUMBERS), x)[-1], plain)
    for denoise in (
        differential(DENOISE, KNOWN, zeros, NOISE, SIGMAS),
        soft(DENOISE, KNOWN, zeros, NOISE, **NUMBERS),
    ):  # three samplers' last step is a sum, or blends the latent in
        assert torch.allclose(run(sampler, denoise, x)[-1], KNOWN, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("bias", "preservation", "boost"), [(1.0, 0.5, 4.0), (0.0, 2.0, 1.0), (2.0, 0.3, 32.0)])
@pytest.mark.parametrize("sigma", [14.0, 1.0, 0.05])
def test_soft_inpainting_follows_the_documented_formulas(
    sigma: float, bias: float, preservation: float, boost: float
) -> None:
    x = KNOWN + sigma * start(7)
    settings = (bias, preservation, boost)
    found = soft(
        DENOISE,
        KNOWN,
        STRENGTHS,
        NOISE,
        schedule_bias=bias,
        preservation_strength=preservation,
        transition_contrast_boost=boost,
    )(x, sigma)
    seen = torch.where(STRENGTHS == 0, KNOWN + sigma * NOISE, x)
    drawn = DENOISE(seen, sigma)
    for picture in range(2):
        for row in range(3):
            for column in range(3):
                weight = float(STRENGTHS[0, 0, row, column])
                old, new = KNOWN[picture, :, row, column], drawn[picture, :, row, column]
                cell = one_cell(old, new, weight, sigma, settings)
                assert torch.allclose(found[picture, :, row, column], cell, rtol=1e-4, atol=1e-4)  # the guard of 1e-5


def one_cell(
    old: torch.Tensor, new: torch.Tensor, weight: float, sigma: float, settings: tuple[float, float, float]
) -> torch.Tensor:
    bias, preservation, boost = settings
    share = weight ** (preservation * sigma**bias)
    mixed = (1 - share) * old + share * new
    if weight in (0.0, 1.0):
        return mixed
    length = ((1 - share) * float(old.norm()) ** boost + share * float(new.norm()) ** boost) ** (1 / boost)
    return mixed * length / float(mixed.norm())


def test_grey_is_known_at_high_noise_and_drawn_at_low_noise() -> None:
    denoise = mixture((-1.0, 1.0), 0.3)
    blended = soft(denoise, KNOWN, STRENGTHS, NOISE, **NUMBERS | {"transition_contrast_boost": 1.0})
    x = start(3)
    grey = ((STRENGTHS > 0) & (STRENGTHS < 0.6)).expand_as(x)
    assert torch.allclose(blended(x * 14, 14.0)[grey], KNOWN[grey], atol=0.1)
    low = 1e-3
    assert torch.allclose(blended(x, low)[grey], denoise(x, low)[grey], atol=0.02)
    assert math.isfinite(float(blended(x, 1e-6).sum()))


def around(values: list[list[float]], row: int, column: int, low: float, high: float) -> float:
    """A1111's filter at one cell, value by value: the weighted mean of a part of what is around, in order of size."""
    kernel: dict[tuple[int, int], float] = {}
    far = math.exp(-9 / 2.25)
    for down in range(-2, 3):
        for right in range(-2, 3):
            kernel[down, right] = max((math.exp(-(down**2 + right**2) / 2.25) - far) / (1 - far), 0.0)
    stack = sorted(
        (values[row + down][column + right], weight)
        for (down, right), weight in kernel.items()
        if 0 <= row + down < len(values) and 0 <= column + right < len(values[0])
    )
    whole = sum(weight for _, weight in stack)
    first, last = whole * low, whole * high
    if last - first < 1:
        centre = (first + last) / 2
        first, last = centre - 0.5, centre + 0.5
        if last > whole:
            first, last = whole - 1, whole
    done, total, counted = 0.0, 0.0, 0.0
    for value, weight in stack:
        part = max(min(last, done + weight) - max(first, done), 0.0)
        total, counted, done = total + value * part, counted + part, done + weight
    return total / counted


@pytest.mark.parametrize("shape", [(1, 7), (2, 2), (6, 5)])
@pytest.mark.parametrize(("low", "high"), [(0.9, 1.0), (0.25, 0.75), (0.0, 1.0), (0.45, 0.5)])
def test_what_is_around_a_cell_is_filtered_as_by_the_documented_loop(
    shape: tuple[int, int], low: float, high: float
) -> None:
    values = torch.randn(2, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).abs()
    found = middle_mean(values, low, high)
    for picture in range(2):
        rows = values[picture, 0].tolist()
        expected = [[around(rows, row, column, low, high) for column in range(shape[1])] for row in range(shape[0])]
        assert torch.allclose(found[picture, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


CHOICE = {
    "preservation_strength": 0.5,
    "mask_influence": 0.0,
    "difference_threshold": 0.5,
    "difference_contrast": 2.0,
}


def test_a_cell_as_far_away_as_the_threshold_is_taken_by_half() -> None:
    """Everywhere alike, so that the filters leave it: at mask influence 0 the mask counts for nothing."""
    away = torch.full((1, 4, 3, 3), 0.25, dtype=torch.float64)  # a length of 0.5 over four channels
    known = start(5)[:1, :, :1, :1].expand(1, 4, 3, 3)
    found = changed(known, known + away, STRENGTHS, **CHOICE)
    assert torch.allclose(found, torch.full_like(found, 0.5), atol=1e-4)  # the guard of 1e-5
    shares = [float(changed(known, known + away * far, STRENGTHS, **CHOICE).mean()) for far in (0.0, 0.5, 2.0, 9.0)]
    assert shares[0] == 0 and shares[1] < 0.2 and 0.8 < shares[2] < shares[3] <= 1
    steep = CHOICE | {"difference_contrast": 8.0}
    assert float(changed(known, known + away * 2, STRENGTHS, **steep).min()) > shares[2]


def test_with_its_whole_influence_the_mask_decides() -> None:
    known = start(5)[:1, :, :1, :1].expand(1, 4, 3, 3)
    found = changed(known, known + 0.3, STRENGTHS, **CHOICE | {"mask_influence": 1.0})
    assert float(found[0, 0, 0, 0]) < 1e-6 and float(found[0, 0, 2, 1]) == 1  # black is kept, white is taken
    ordered = found[0, 0].flatten()[STRENGTHS.flatten().argsort()]
    assert bool((ordered.diff() >= 0).all())


def test_numbers_at_their_ends_make_shares() -> None:
    known = start(5)
    drawn = torch.cat([known[:1], known[1:] + 1])  # the first has not changed at all
    for change in ({"difference_threshold": 0.0}, {"difference_contrast": 0.0}, {"preservation_strength": 0.0}):
        found = changed(known, drawn, STRENGTHS, **CHOICE | change | {"mask_influence": 1.0})
        assert bool(((found >= 0) & (found <= 1)).all()), change
    assert float(changed(known, drawn, STRENGTHS, **CHOICE | {"difference_threshold": 0.0})[0].max()) == 0
