"""ControlNets, T2I-Adapters and image encoders at their published sizes, against the reference's outputs."""

from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers import T2IAdapter as ReferenceAdapter
from nn_reference import TOLERANCE, paired, published, relative_error, unets, uninitialized
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sfumato.nn.additions import Additions
from sfumato.nn.clip_vision import VIT_H, ImageEncoder, VisionConfig
from sfumato.nn.controlnet import ControlNet, ControlNetConfig
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.nn.unet import UNetConfig

pytestmark = pytest.mark.slow


def added(config: dict[str, Any], normal: Any) -> tuple[Any, Any]:
    """What SDXL's networks take beside the words, for us and for the reference."""
    if "addition_embed_type" not in config:
        return {}, None
    pooled, size = normal(1, 1280), torch.tensor([[1024.0, 768.0, 0.0, 8.0, 1024.0, 768.0]])
    return {"pooled": pooled, "size": size}, {"text_embeds": pooled, "time_ids": size}


@pytest.mark.parametrize("name", ["sd15-unet", "sd21-unet", "sdxl-unet"])
@torch.no_grad()
def test_full_size_controlnet_in_its_unet_equals_diffusers(name: str, normal: Any) -> None:
    """Random weights, shared by both sides; few latent cells, so that memory is the weights'."""
    stated = published(name)
    config = ControlNetConfig(UNetConfig.from_json(stated))
    reference, ours = paired(uninitialized(ControlNetModel, config.to_json()), ControlNet, config)
    mine, theirs = added(stated, normal)
    x, timestep, context = normal(1, 4, 16, 24), torch.tensor([481.0]), normal(1, 77, stated["cross_attention_dim"])
    picture = normal(1, 3, 128, 192).sigmoid()
    expected = reference(x, timestep, context, picture, added_cond_kwargs=theirs)
    found = ours(x, timestep, context, ours.see(picture), **mine)
    for here, there in zip(found.skips, expected.down_block_res_samples, strict=True):
        assert relative_error(here, there) <= TOLERANCE
    assert relative_error(found.middle, expected.mid_block_res_sample) <= TOLERANCE
    del reference, ours
    unet, our_unet = unets(stated)
    assert isinstance(unet, UNet2DConditionModel)
    whole = unet(
        x,
        timestep,
        context,
        added_cond_kwargs=theirs,
        down_block_additional_residuals=expected.down_block_res_samples,
        mid_block_additional_residual=expected.mid_block_res_sample,
    ).sample
    residuals = Additions(found.skips, found.middle)
    assert relative_error(our_unet(x, timestep, context, **mine, added=residuals), whole) <= TOLERANCE


@pytest.mark.parametrize("kind", ["full_adapter", "full_adapter_xl", "light_adapter"])
@torch.no_grad()
def test_full_size_t2i_adapter_equals_diffusers(kind: str, normal: Any) -> None:
    light = kind == "light_adapter"
    config = T2IAdapterConfig(
        channels=(320, 640, 1280) if light else (320, 640, 1280, 1280),
        num_res_blocks=4 if light else 2,
        downscale_factor=16 if kind.endswith("xl") else 8,
        adapter_type=kind,
    )
    reference, ours = paired(uninitialized(ReferenceAdapter, config.to_json()), T2IAdapter, config)
    picture = normal(1, 3, 256, 320).sigmoid()
    for here, there in zip(ours(picture), reference(picture), strict=True):
        assert relative_error(here, there) <= TOLERANCE


@torch.no_grad()
def test_full_size_image_encoder_equals_transformers(normal: Any) -> None:
    """ViT-H/14, as IP-Adapters for SD 1.x have it."""
    stated = VIT_H.to_json()
    with torch.device("meta"):
        reference = CLIPVisionModelWithProjection(CLIPVisionConfig(**stated))
    reference = reference.to_empty(device="cpu")
    places = torch.arange(VIT_H.tokens).expand((1, -1))
    reference.vision_model.embeddings.position_ids = places  # a buffer that no file has
    reference, ours = paired(reference, ImageEncoder, VisionConfig.from_json(stated))
    pixels = normal(1, 3, 224, 224)
    expected, found = reference(pixels, output_hidden_states=True), ours(pixels)
    assert relative_error(found.embedding, expected.image_embeds) <= TOLERANCE
    assert relative_error(found.hidden, expected.hidden_states[-2]) <= TOLERANCE
