"""The published models at their full size: names and shapes of every weight; slowly, their outputs."""

import math

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from nn_reference import (
    TOLERANCE,
    autoencoders,
    of_reference,
    published,
    reference_text_encoder,
    relative_error,
    text_encoders,
    unets,
)

from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig

# Parameters as the model cards and papers count them.
COUNTS = {
    "sd15-unet": 859_520_964,
    "sd15-inpainting-unet": 859_535_364,  # five more input channels: 5 * 9 * 320 weights
    "sd21-unet": 865_910_724,
    "sdxl-unet": 2_567_463_684,
    "sd15-vae": 83_653_863,
    "sd21-vae": 83_653_863,
    "sdxl-vae": 83_653_863,
    "sd15-text-encoder": 123_060_480,
    "sd21-text-encoder": 340_387_840,
    "sdxl-text-encoder": 123_060_480,
    "sdxl-text-encoder-2": 694_659_840,
}


def networks(name: str):
    """Ours and the reference's, on the meta device."""
    config = published(name)
    with torch.device("meta"):
        if name.endswith("unet"):
            return UNet(UNetConfig.from_json(config)), UNet2DConditionModel.from_config(config)
        if name.endswith("vae"):
            return Autoencoder(AutoencoderConfig.from_json(config)), AutoencoderKL.from_config(config)
        return TextEncoder(TextEncoderConfig.from_json(config)), reference_text_encoder(config)


@pytest.mark.parametrize("name", [*COUNTS, "sdxl-refiner-unet"])
def test_every_weight_has_the_published_name_and_shape(name):
    ours, reference = networks(name)
    found = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    assert found == {key: tuple(value.shape) for key, value in of_reference(reference).items()}
    assert sum(map(math.prod, found.values())) == COUNTS.get(name, sum(p.numel() for p in reference.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15-unet", "sd15-inpainting-unet", "sd21-unet", "sdxl-unet", "sdxl-refiner-unet"])
@torch.no_grad()
def test_full_size_unet_equals_diffusers(name, normal):
    """Random weights, shared by both networks; few latent cells, so that memory is the weights'."""
    config = published(name)
    reference, ours = unets(config)
    x, timestep, context = (
        normal(1, config["in_channels"], 16, 24),
        torch.tensor([481.25]),
        normal(1, 77, config["cross_attention_dim"]),
    )
    pooled = size = added = None
    if "addition_embed_type" in config:
        ids = (config["projection_class_embeddings_input_dim"] - 1280) // 256
        pooled, size = normal(1, 1280), torch.tensor([[1024.0, 768.0, 0.0, 8.0, 1024.0, 768.0]])[:, :ids]
        added = {"text_embeds": pooled, "time_ids": size}
    expected = reference(x, timestep, context, added_cond_kwargs=added).sample
    assert relative_error(ours(x, timestep, context, pooled, size), expected) <= TOLERANCE
    last = x.to(memory_format=torch.channels_last)
    assert relative_error(ours(last, timestep, context, pooled, size), expected) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15-vae", "sdxl-vae"])
@torch.no_grad()
def test_full_size_autoencoder_equals_diffusers(name, normal):
    reference, ours = autoencoders(published(name))
    pixels, latent = normal(1, 3, 192, 128).clamp(-1, 1), normal(1, 4, 32, 40)
    expected = reference.encode(pixels).latent_dist
    found = ours.encode(pixels)
    assert relative_error(found.mean, expected.mean) <= TOLERANCE
    assert relative_error(found.std, expected.std) <= TOLERANCE
    assert relative_error(ours.decode(latent), reference.decode(latent).sample) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15-text-encoder", "sd21-text-encoder", "sdxl-text-encoder-2"])
@torch.no_grad()
def test_full_size_text_encoder_equals_transformers(name):
    reference, ours = text_encoders(published(name))
    ids = torch.randint(1, 49406, (2, 77), generator=torch.Generator().manual_seed(3))
    ids[0, 11:] = 49407
    ids[1, 30], ids[1, 31:] = 49407, 0
    expected, found = reference(ids, output_hidden_states=True), ours(ids)
    assert relative_error(found.last, expected.last_hidden_state) <= TOLERANCE
    assert relative_error(found.hidden[-2], expected.hidden_states[-2]) <= TOLERANCE
    pooled = expected.text_embeds if name.endswith("2") else expected.pooler_output
    assert relative_error(found.pooled, pooled) <= TOLERANCE
