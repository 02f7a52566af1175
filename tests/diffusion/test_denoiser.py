"""The algebra between a network, its denoiser and its training target."""

import math
from typing import get_args

import pytest
import torch
from toys import network, start

from sfumato.diffusion.denoiser import (
    PREDICTIONS,
    Prediction,
    denoiser,
    from_network_output,
    network_input,
    network_output,
    scalings,
    target,
)
from sfumato.diffusion.schedule import scaled_linear
from sfumato.errors import ConfigError

SD = scaled_linear()


def test_predictions_are_listed_once() -> None:
    assert get_args(Prediction) == PREDICTIONS


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("timestep", [0, 1, 400, 999])
def test_a_network_that_outputs_the_target_denoises_exactly(prediction: Prediction, timestep: int) -> None:
    clean, noise = start(1), start(2)
    sigma = torch.full((2,), SD.sigmas[timestep], dtype=torch.float64)
    goal = target(prediction, clean, noise, sigma)
    seen = network_input(clean, noise, sigma)

    def perfect(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        assert torch.allclose(x, seen, rtol=1e-14, atol=1e-14)
        assert at.tolist() == [float(timestep)] * 2
        return goal

    denoise = denoiser(perfect, SD, prediction)
    x = clean + SD.sigmas[timestep] * noise
    # noise prediction subtracts sigma times the noise from x: 14.6 times the rounding of 1
    assert float((denoise(x, SD.sigmas[timestep]) - clean).abs().max()) < 1e-13


def test_velocity_is_salimans_and_ho() -> None:
    clean, noise = start(1), start(2)
    sigma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    alpha = (1 / (1 + sigma**2)).sqrt().reshape(2, 1, 1, 1)
    expected = alpha * noise - (1 - alpha**2).sqrt() * clean
    assert torch.allclose(target("v_prediction", clean, noise, sigma), expected, rtol=1e-13, atol=1e-14)


def test_targets_are_per_sample_and_keep_the_precision() -> None:
    clean, noise = start(1).float(), start(2).float()
    both = target("v_prediction", clean, noise, torch.tensor([0.5, 3.0], dtype=torch.float64))
    alone = target("v_prediction", clean[1:], noise[1:], torch.tensor([3.0]))
    assert both.dtype == torch.float32
    assert torch.equal(both[1:], alone)


def test_network_input_has_unit_variance_for_unit_data() -> None:
    clean, noise = start(1, (1, 1, 300, 300)), start(2, (1, 1, 300, 300))
    for sigma in (0.03, 1.0, 14.6):
        found = network_input(clean, noise, torch.tensor([sigma], dtype=torch.float64)).std()
        assert float(found) == pytest.approx(1.0, abs=0.01)  # 90,000 samples: 3 sigma are 0.007


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_network_output_inverts_the_denoiser(prediction: Prediction, sigma: float) -> None:
    x, denoised = start(1), start(2)
    output = network_output(prediction, x, denoised, sigma)
    assert torch.allclose(from_network_output(prediction, x, output, sigma), denoised, rtol=0, atol=1e-13)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_scalings_are_diffusers_conversions(prediction: Prediction) -> None:
    sigma = 2.5
    x, output = start(1), start(2)
    alpha, s = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    latent = x * alpha
    expected = {
        "epsilon": (latent - s * output) / alpha,
        "v_prediction": alpha * latent - s * output,
        "sample": output,
    }
    found = from_network_output(prediction, x, output, sigma)
    assert torch.allclose(found, expected[prediction], rtol=1e-13, atol=1e-13)


def test_the_network_sees_float32_timesteps_and_its_answer_takes_the_states_precision() -> None:
    seen: list[torch.dtype] = []

    def half(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        seen.append(timestep.dtype)
        return network(x, timestep).to(torch.bfloat16)

    denoised = denoiser(half, SD, "epsilon")(start().float(), 1.0)
    assert seen == [torch.float32]
    assert denoised.dtype == torch.float32


def test_a_lookup_can_be_passed_instead_of_a_rule() -> None:
    seen: list[float] = []

    def record(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        seen.append(float(timestep[0]))
        return x

    denoiser(record, SD, "epsilon", lambda sigma: 123.0)(start(), 1.0)
    denoiser(record, SD, "epsilon", "nearest")(start(), 1.0)
    assert seen == [123.0, SD.nearest(1.0)]


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ConfigError, match="flow"):
        scalings("flow", 1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="flow"):
        target("flow", start(), start(), torch.ones(2))  # type: ignore[arg-type]
