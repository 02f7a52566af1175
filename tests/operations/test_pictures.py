"""The operations that draw nothing new: through the autoencoder and back, prompts in tokens, previews."""

import math

import pytest
import torch
from PIL import Image
from tiny_models import SIZE, scene

from sfumato.errors import RequestError
from sfumato.images import psnr, to_pixels
from sfumato.model import Model
from sfumato.operations import decode, encode_image, reconstruct, report_prompt
from sfumato.preview import SD_FACTORS, fit_factors, preview


@pytest.mark.parametrize("size", [(SIZE, SIZE), (63, 41), (16, 16)])
def test_a_reconstruction_has_the_size_of_the_picture_and_says_how_alike_it_is(
    tiny: Model, size: tuple[int, int]
) -> None:
    found = reconstruct(tiny, scene(*size))
    assert found.picture.size == found.original.size == size
    assert found.psnr == psnr(found.original, found.picture)
    assert 0 < found.psnr < 40
    assert -1 <= found.ssim < 1


def test_what_is_too_small_to_reconstruct_is_refused(tiny: Model) -> None:
    with pytest.raises(RequestError, match="16 to 8192"):
        reconstruct(tiny, Image.new("RGB", (15, 64)))


def test_latents_are_scaled_on_both_ways(tiny: Model) -> None:
    pixels = to_pixels([scene()])
    with torch.no_grad():
        unscaled = tiny.autoencoder.encode(pixels)
        pictures = tiny.autoencoder.decode(unscaled.mean)
    posterior = encode_image(tiny, pixels)
    assert torch.allclose(posterior.mean, unscaled.mean * 0.18215)
    assert torch.allclose(posterior.std, unscaled.std * 0.18215)
    assert torch.allclose(decode(tiny, posterior.mean), pictures, atol=1e-5)


def test_a_prompt_is_reported_in_tokens(tiny: Model) -> None:
    report = report_prompt(tiny, "a (red:1.2) house")
    assert report.tokens == ("a</w>", "red</w>", "house</w>")
    assert report.weights == (1.0, 1.2, 1.0)


def test_preview_factors_are_found_by_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 8, 8, generator=generator)
    truth = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    pixels = torch.einsum("bchw,cr->brhw", latents.double(), truth[:4]) + truth[4].view(1, 3, 1, 1)
    found = torch.tensor(fit_factors(latents, pixels), dtype=torch.float64)
    assert torch.allclose(found, truth, atol=1e-10)


def test_a_preview_has_one_pixel_per_cell_and_survives_what_is_not_finite() -> None:
    latent = torch.zeros(2, 4, 3, 5)
    latent[1, 0] = math.nan
    first, second = preview(latent, SD_FACTORS)
    assert first.size == second.size == (5, 3)
    assert first.getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(ValueError, match="preview factors"):
        preview(torch.zeros(1, 16, 2, 2), SD_FACTORS)
