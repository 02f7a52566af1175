"""The autoencoder against diffusers' with the same random weights, and decoding and encoding by parts."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from nn_reference import TOLERANCE, autoencoders, gradients, published, relative_error

from sfumato.nn.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    Posterior,
    decode_sliced,
    decode_tiled,
    encode_tiled,
    tile_spans,
)

SD = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [32, 64, 96, 96],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
SMALL = {**SD, "layers_per_block": 1, "norm_num_groups": 16}
BARE = {
    **SD,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 8,
    "latent_channels": 3,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
}
KINDS: dict[str, dict[str, Any]] = {"SD": SD, "small": SMALL, "bare": BARE}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_encoder_and_decoder_equal_diffusers(kind, memory, normal):
    reference, ours = autoencoders(KINDS[kind])
    pixels = normal(2, 3, 48, 64).clamp(-1, 1)
    expected = reference.encode(pixels).latent_dist
    found = ours.encode(pixels.to(memory_format=memory))
    assert relative_error(found.mean, expected.mean) <= TOLERANCE
    assert relative_error(found.std, expected.std) <= TOLERANCE
    assert relative_error(found.divergence(), expected.kl()) <= TOLERANCE
    latent = normal(2, KINDS[kind]["latent_channels"], 6, 10)
    assert relative_error(ours.decode(latent.to(memory_format=memory)), reference.decode(latent).sample) <= TOLERANCE


@torch.no_grad()
def test_large_latents_decode_as_in_diffusers(normal):
    """From 64x64 cells on, doubling is a transposed convolution."""
    reference, ours = autoencoders(SMALL)
    latent = normal(1, 4, 33, 40)
    assert relative_error(ours.decode(latent), reference.decode(latent).sample) <= TOLERANCE


def test_gradients_equal_those_of_diffusers(normal):
    reference, ours = autoencoders(SMALL)
    pixels, noise = normal(2, 3, 32, 32).clamp(-1, 1), normal(2, 4, 4, 4)
    expected = reference.encode(pixels).latent_dist
    (reference.decode(expected.mean + expected.std * noise).sample - pixels).abs().mean().backward()
    wanted = gradients(reference)
    (ours.decode(ours.encode(pixels).sample(noise)) - pixels).abs().mean().backward()
    found = gradients(ours)
    whole = torch.cat([wanted[name].flatten() for name in found])
    assert relative_error(torch.cat([gradient.flatten() for gradient in found.values()]), whole) <= TOLERANCE


def test_posterior_of_a_standard_normal_diverges_by_nothing():
    posterior = Posterior(torch.zeros(2, 4, 3, 3), torch.ones(2, 4, 3, 3))
    assert torch.equal(posterior.divergence(), torch.zeros(2))
    noise = torch.full((2, 4, 3, 3), 0.5)
    assert torch.equal(posterior.sample(noise), noise)


@torch.no_grad()
def test_standard_deviation_stays_finite_for_any_log_variance():
    _, ours = autoencoders(BARE)
    ours.encoder.conv_out.bias.fill_(1e4)
    std = ours.encode(torch.zeros(1, 3, 8, 8)).std
    assert torch.equal(std, torch.full_like(std, 10.0).exp())  # exp(20 / 2)
    ours.encoder.conv_out.bias.fill_(-1e4)
    assert ours.encode(torch.zeros(1, 3, 8, 8)).std.min() > 0


@torch.no_grad()
def test_decoding_picture_by_picture_is_decoding_them_together(normal):
    _, ours = autoencoders(SMALL)
    latent = normal(3, 4, 5, 6)
    # Kernels add in another order for another batch; more than 1e-6 of that is left at the end of the decoder.
    assert relative_error(decode_sliced(ours, latent), ours.decode(latent)) <= TOLERANCE


@torch.no_grad()
def test_a_latent_of_one_tile_is_decoded_and_encoded_whole(normal):
    _, ours = autoencoders(SMALL)
    latent, pixels = normal(1, 4, 8, 5), normal(1, 3, 64, 40)
    assert torch.equal(decode_tiled(ours, latent, tile=8, overlap=2), ours.decode(latent))
    found, expected = encode_tiled(ours, pixels, tile=8, overlap=2), ours.encode(pixels)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)


@pytest.mark.parametrize(("height", "width"), [(20, 7), (7, 20), (31, 17), (9, 9)])
def test_tiles_of_a_network_that_sees_single_cells_blend_to_the_whole(height, width, normal):
    """Placement and weights alone: what every tile agrees on must come out, up to the rounding of a weighted mean."""
    cells = SimpleNamespace(
        config=AutoencoderConfig(),
        decode=lambda latent: F.interpolate(latent, scale_factor=8.0),
        encode=lambda pixels: Posterior(F.avg_pool2d(pixels, 8), F.max_pool2d(pixels, 8)),
    )
    latent, pixels = normal(2, 4, height, width), normal(2, 3, 8 * height, 8 * width)
    assert relative_error(decode_tiled(cells, latent, tile=8, overlap=3), cells.decode(latent)) <= 1e-6
    found, expected = encode_tiled(cells, pixels, tile=8, overlap=3), cells.encode(pixels)
    assert relative_error(found.mean, expected.mean) <= 1e-6
    assert relative_error(found.std, expected.std) <= 1e-6


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(9, 8, 3), (64, 64, 16), (65, 64, 16), (1000, 64, 16), (30, 7, 6)]
)
def test_tiles_cover_everything_and_overlap_enough(length, tile, overlap):
    spans = tile_spans(length, tile, overlap)
    assert spans[0].start == 0
    assert spans[-1].stop == length
    assert all(span.stop - span.start == min(tile, length) for span in spans)
    assert all(before.stop - after.start >= overlap for before, after in pairwise(spans))


@torch.no_grad()
def test_tiles_of_an_even_picture_have_no_seams(normal):
    """Tiling is approximate: group norm and attention see a tile. Where all tiles look alike little of that is left.

    With random weights and noise for a latent, tiles differ from the whole by 11 %, and the difference does not
    jump where tiles meet: across the lines where a tile begins or ends it changes no more than elsewhere.
    """
    _, ours = autoencoders(SMALL)
    latent = normal(1, 4, 40, 40)
    whole = ours.decode(latent)
    difference = decode_tiled(ours, latent, tile=24, overlap=8) - whole
    assert difference.norm() <= 0.15 * whole.norm()
    steps = difference.diff(dim=3).abs().mean(dim=(0, 1, 2))  # between each column of pixels and the next
    seams = [edge * 8 - 1 for edge in (16, 24)]
    assert steps[seams].max() <= 1.5 * steps.mean()


def test_tiling_refuses_what_it_cannot_do():
    ours = Autoencoder(AutoencoderConfig.from_json(BARE))
    with pytest.raises(ValueError, match="overlap 8"):
        decode_tiled(ours, torch.zeros(1, 3, 9, 9), tile=8, overlap=8)
    with pytest.raises(ValueError, match="multiples of 2"):
        encode_tiled(ours, torch.zeros(1, 3, 9, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_builds_the_same_network_from_our_config(kind):
    config = AutoencoderConfig.from_json(KINDS[kind])
    with torch.device("meta"):
        theirs = AutoencoderKL.from_config(config.to_json())
        ours = Autoencoder(config)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert AutoencoderConfig.from_json(config.to_json()) == config
    assert dict(theirs.config)["scaling_factor"] == config.scaling_factor


def test_stride_is_the_pixels_of_a_latent_cell():
    assert AutoencoderConfig.from_json(published("sd15-vae")).stride == 8
    assert AutoencoderConfig.from_json(BARE).stride == 2
