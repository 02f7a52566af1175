"""The operations that draw nothing new: through the autoencoder and back, prompts in tokens, previews."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import SIZE, recorded, scene

from sfumato.errors import RequestError
from sfumato.events import Preview
from sfumato.generation import stream
from sfumato.images import psnr, to_pixels
from sfumato.model import Model
from sfumato.operations import decode, encode_image, reconstruct
from sfumato.preview import SD_FACTORS, fit_factors, preview
from sfumato.request import Request
from sfumato.weights.load import load
from sfumato.weights.save import save_folder


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
    report = tiny.text.tokens("a (red:1.2) house")
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


def test_a_models_own_preview_factors_are_saved_loaded_and_used(tiny: Model, tmp_path: Path) -> None:
    green = ((0.0, 0.0, 0.0),) * 4 + ((-1.0, 1.0, -1.0),)
    save_folder(replace(tiny, family=replace(tiny.family, preview=green)), tmp_path / "green")
    model = load(tmp_path / "green")
    assert model.family.preview == green
    events = stream(model, Request(prompt="a cat", steps=2, seed=0, width=16, height=16), preview_every=1)
    (shown,) = [event.images[0] for event in events if isinstance(event, Preview)]
    assert set(shown.get_flattened_data()) == {(0, 255, 0)}


def test_large_pictures_are_decoded_in_bands_and_in_tiles_where_a_model_asks_for_little_memory(tiny: Model) -> None:
    small, large = torch.zeros(1, 4, 100, 100), torch.zeros(1, 4, 200, 200)
    with torch.no_grad(), recorded(tiny.autoencoder.decoder) as calls:
        assert decode(tiny, small).shape == (1, 3, 800, 800)
        assert len(calls) == 1
        assert decode(tiny, large).shape == (1, 3, 1600, 1600)
        assert len(calls) == 1  # bands ask the decoder's parts, never the whole
        assert decode(replace(tiny, tiled_above=512 * 512), small).shape == (1, 3, 800, 800)
    assert len(calls) > 2


def test_a_half_precision_that_overflows_is_decoded_again_in_float32(tiny: Model) -> None:
    loud = deepcopy(tiny.autoencoder)
    with torch.no_grad():
        loud.decoder.conv_in.weight *= 3e4  # float16 ends at 65504; the group norms make the picture the same
        loud.decoder.conv_in.bias *= 3e4
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = decode(replace(tiny, autoencoder=loud), latent)
    half = replace(tiny, autoencoder=loud.half())
    with torch.no_grad():
        assert not torch.isfinite(loud.decode(latent.half() / tiny.scaling_factor)).all()
    # what is left is the rounding of weights and latent to float16's 11 bits
    assert float((decode(half, latent) - expected).norm() / expected.norm()) < 0.02
