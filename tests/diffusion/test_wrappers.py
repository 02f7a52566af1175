"""Guidance and inpainting as denoisers of denoisers."""

import math
from functools import partial

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor
from toys import gaussian, mixture, network, silent, start

from sfumato.diffusion.denoiser import PREDICTIONS, Prediction, denoiser, from_network_output, network_output
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.schedule import scaled_linear
from sfumato.diffusion.spacing import karras
from sfumato.diffusion.wrappers import combine, guide, guide_doubled, inpaint, interval, rescaled, sigma_at

SD = scaled_linear()
POSITIVE, NEGATIVE = gaussian(0.7, 0.4), gaussian(-0.5, 0.8)


def test_guidance_at_one_is_the_conditional_branch_alone() -> None:
    assert guide(POSITIVE, NEGATIVE, 1.0) is POSITIVE
    assert guide(POSITIVE, NEGATIVE, 1.0, rescale=0.7) is POSITIVE


def test_guidance_at_zero_is_the_unconditional_branch() -> None:
    x = start()
    assert torch.equal(guide(POSITIVE, NEGATIVE, 0.0)(x, 2.0), NEGATIVE(x, 2.0))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_guidance_is_the_same_in_clean_latent_and_in_network_space(prediction: Prediction) -> None:
    x, sigma = start() * 3, 3.0
    positive, negative = POSITIVE(x, sigma), NEGATIVE(x, sigma)
    outputs = [network_output(prediction, x, denoised, sigma) for denoised in (positive, negative)]
    there = from_network_output(prediction, x, combine(outputs[0], outputs[1], 7.5), sigma)
    assert torch.allclose(combine(positive, negative, 7.5), there, rtol=0, atol=1e-13)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_rescale_equals_diffusers_on_the_networks_output(prediction: Prediction) -> None:
    x, sigma = start() * 3, 3.0
    positive, negative = POSITIVE(x, sigma).sin(), NEGATIVE(x, sigma)
    outputs = [network_output(prediction, x, denoised, sigma) for denoised in (positive, negative)]
    there = rescale_noise_cfg(combine(outputs[0], outputs[1], 7.5), outputs[0], guidance_rescale=0.7)
    expected = from_network_output(prediction, x, there, sigma)
    guided = combine(positive, negative, 7.5)
    found = rescaled(guided, positive, x, sigma, amount=0.7, prediction=prediction)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_rescale_in_clean_latent_space_would_be_another() -> None:
    """The reason for converting back first: the two differ by far more than rounding."""
    x, sigma = start() * 3, 3.0
    positive = POSITIVE(x, sigma).sin()
    guided = combine(positive, NEGATIVE(x, sigma), 7.5)
    found = rescaled(guided, positive, x, sigma, amount=1.0, prediction="epsilon")
    naive = guided * positive.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True)
    assert float((found - naive).abs().max()) > 0.1


def test_rescale_of_nothing_changes_nothing() -> None:
    x = start()
    assert torch.equal(guide(POSITIVE, NEGATIVE, 5.0, rescale=0.0)(x, 1.0), guide(POSITIVE, NEGATIVE, 5.0)(x, 1.0))


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_guidance_on_the_doubled_batch_equals_two_calls(rescale: float) -> None:
    def doubled(x: Tensor, sigma: float) -> Tensor:
        negative, positive = x.chunk(2)
        return torch.cat([NEGATIVE(negative, sigma), POSITIVE(positive, sigma)])

    x = start() * 2
    once = guide_doubled(doubled, 6.0, rescale=rescale, prediction="v_prediction")(x, 2.0)
    twice = guide(POSITIVE, NEGATIVE, 6.0, rescale=rescale, prediction="v_prediction")(x, 2.0)
    assert torch.equal(once, twice)


def test_guidance_towards_a_normal_is_the_normal_of_the_guided_score() -> None:
    """Scale 2 between two normals of one width: the estimate of a normal whose mean is extrapolated."""
    x = start() * 2
    found = guide(gaussian(1.0, 0.5), gaussian(0.2, 0.5), 2.0)(x, 2.0)
    assert torch.allclose(found, gaussian(1.8, 0.5)(x, 2.0), rtol=0, atol=1e-14)


def test_interval_guides_only_inside() -> None:
    limited = interval(guide(POSITIVE, NEGATIVE, 5.0), POSITIVE, low=0.5, high=5.0)
    x = start()
    for sigma in (0.1, 0.5, 5.1, 14.0):
        assert torch.equal(limited(x, sigma), POSITIVE(x, sigma))
    for sigma in (0.51, 2.0, 5.0):
        assert torch.equal(limited(x, sigma), guide(POSITIVE, NEGATIVE, 5.0)(x, sigma))


def test_parts_of_a_run_are_comfyuis_percent() -> None:
    assert sigma_at(SD, 0.0) == math.inf
    assert sigma_at(SD, 1.0) == 0.0
    assert sigma_at(SD, 0.5) == pytest.approx(SD.sigma(499.5), rel=1e-12)


def whole_interval() -> tuple[float, float]:
    return sigma_at(SD, 1.0), sigma_at(SD, 0.0)


def test_the_whole_interval_is_plain_guidance() -> None:
    low, high = whole_interval()
    limited = interval(guide(POSITIVE, NEGATIVE, 5.0), POSITIVE, low, high)
    x = start()
    for sigma in (SD.sigmas[0], 1.0, SD.sigmas[-1]):
        assert torch.equal(limited(x, sigma), guide(POSITIVE, NEGATIVE, 5.0)(x, sigma))


HALF = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
HALF[..., :2] = 1.0
DENOISE = denoiser(network, SD, "epsilon")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inpainting_keeps_what_is_known_in_every_sampler(sampler: str) -> None:
    """At the end, which is 0, the kept cells are the known ones to the last bit."""
    known, noise = start(5), start(6)
    sigmas = karras(SD, 6)
    steps = SAMPLERS[sampler](inpaint(DENOISE, known, HALF, noise), noise * sigmas[0], sigmas, lambda draw: start(draw))
    end = list(steps)[-1]
    kept = (HALF == 0).expand_as(known)
    assert torch.allclose(end.x[kept], known[kept], rtol=0, atol=1e-13)
    if sampler not in ("lcm", "lms", "plms"):  # whose last step is a sum, or blends the latent in
        assert torch.equal(end.x[kept], known[kept])


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_sde", "unipc"])
def test_a_mask_of_ones_changes_nothing(sampler: str) -> None:
    known, noise = start(5), start(6)
    sigmas = karras(SD, 6)
    run = partial(SAMPLERS[sampler], sigmas=sigmas, noise=lambda draw: start(draw))
    masked = inpaint(DENOISE, known, torch.ones_like(HALF), noise)
    for ours, plain in zip(
        run(denoise=masked, x=noise * sigmas[0]), run(denoise=DENOISE, x=noise * sigmas[0]), strict=True
    ):
        assert torch.equal(ours.x, plain.x)


def test_a_mask_of_zeros_is_the_known_latent() -> None:
    known, noise = start(5), start(6)
    sigmas = karras(SD, 6)
    masked = inpaint(DENOISE, known, torch.zeros_like(HALF), noise)
    end = list(SAMPLERS["dpmpp_2m"](masked, noise * sigmas[0], sigmas, silent))[-1]
    assert torch.equal(end.x, known)


def test_the_network_sees_the_known_part_at_the_level_of_the_step() -> None:
    known, noise = start(5), start(6)
    seen: list[tuple[Tensor, float]] = []

    def record(x: Tensor, sigma: float) -> Tensor:
        seen.append((x, sigma))
        return mixture((-1.0, 1.0), 0.3)(x, sigma)

    sigmas = karras(SD, 4)
    list(SAMPLERS["heun"](inpaint(record, known, HALF, noise), noise * sigmas[0], sigmas, silent))
    assert len(seen) == 7
    for x, sigma in seen:
        assert torch.equal((x * (1 - HALF))[..., 2], (known + sigma * noise)[..., 2])
