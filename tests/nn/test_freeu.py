"""FreeU against diffusers' `enable_freeu`."""

from typing import Any

import pytest
import torch
from nn_reference import TOLERANCE, relative_error, unets
from test_unet import FAMILIES, SD1, SDXL, inputs, reference_output

from sfumato.nn.freeu import coarse_scaled, with_freeu

NUMBERS = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (9, 7)], ids=["whole", "no power of two", "odd"])
@pytest.mark.parametrize("family", ["SD 1.x", "SDXL", "small"])
@torch.no_grad()
def test_freeu_equals_diffusers(family: str, size: tuple[int, int], normal: Any) -> None:
    reference, ours = unets(FAMILIES[family])
    given = inputs(FAMILIES[family], normal, *size)
    plain = reference_output(reference, given)
    reference.enable_freeu(**NUMBERS)
    expected = reference_output(reference, given)
    found = with_freeu(ours, **NUMBERS)(**given)
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(plain, expected) > 0.05
    assert relative_error(ours(**given), plain) <= TOLERANCE  # the first network is as it was


@pytest.mark.parametrize("config", [SD1, SDXL], ids=["SD 1.x", "SDXL"])
@torch.no_grad()
def test_factors_of_one_change_nothing(config: dict[str, Any], normal: Any) -> None:
    _, ours = unets(config)
    given = inputs(config, normal)
    assert relative_error(with_freeu(ours, 1.0, 1.0, 1.0, 1.0)(**given), ours(**given)) <= TOLERANCE


def test_the_coarse_part_of_a_wave_is_the_wave_or_nothing(normal: Any) -> None:
    """A constant is coarse; a wave of two periods is not."""
    places = torch.arange(16) / 16
    wave = torch.cos(4 * torch.pi * places).expand(1, 1, 16, 16)
    flat = torch.full((1, 1, 16, 16), 0.7)
    assert torch.allclose(coarse_scaled(flat + wave, 0.25), 0.25 * flat + wave, atol=1e-6)
