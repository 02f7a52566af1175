"""Decoding and encoding in bands equals doing it whole, whatever the bands, and holds less."""

import pytest
import torch
from nn_reference import randomize, relative_error

from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.banded import decode_banded, encode_banded

CONFIG = {
    "block_out_channels": [16, 32, 48],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    network = Autoencoder(AutoencoderConfig.from_json(CONFIG)).eval()
    randomize(network, 3)
    return network


def random(*shape: int) -> torch.Tensor:
    # a slope, so that what tiles see of it would have other statistics than the whole
    slope = torch.linspace(-3, 3, shape[2])[:, None] + torch.linspace(0, 2, shape[3])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) + slope


@pytest.mark.parametrize("band", [1, 20_000, 70_000, 10**9])  # bytes: the least rows, several bands, one band
@pytest.mark.parametrize(("height", "width"), [(16, 16), (23, 9)])
@torch.no_grad()
def test_bands_give_what_the_whole_does(autoencoder: Autoencoder, band: int, height: int, width: int) -> None:
    latent = random(2, 4, height, width)
    kept = latent.clone()
    assert relative_error(decode_banded(autoencoder, latent, band=band), autoencoder.decode(latent)) <= 1e-5
    assert torch.equal(latent, kept)
    pixels = random(2, 3, 4 * height, 4 * width)
    kept = pixels.clone()
    found, expected = encode_banded(autoencoder, pixels, band=band), autoencoder.encode(pixels)
    assert relative_error(found.mean, expected.mean) <= 1e-5
    assert relative_error(found.std, expected.std) <= 1e-5
    assert torch.equal(pixels, kept)


@torch.no_grad()
def test_bands_in_double_precision_differ_by_rounding_alone(autoencoder: Autoencoder) -> None:
    double = Autoencoder(AutoencoderConfig.from_json(CONFIG)).eval().double()
    double.load_state_dict({name: each.double() for name, each in autoencoder.state_dict().items()})
    latent = random(1, 4, 20, 12).double()
    # statistics are of float32 pieces, joined in float64
    assert relative_error(decode_banded(double, latent, band=30_000), double.decode(latent)) <= 1e-6
