"""Published configurations are read as they are; what we cannot honour is refused by name."""

from typing import Any

import pytest
from nn_reference import published

from sfumato.errors import ConfigError
from sfumato.nn.autoencoder import AutoencoderConfig
from sfumato.nn.clip import TextEncoderConfig
from sfumato.nn.unet import UNetConfig

REFUSED: list[tuple[Any, str, str, object]] = [
    (UNetConfig, "sd15-unet", "class_embed_type", "timestep"),
    (UNetConfig, "sd15-unet", "time_embedding_dim", 256),
    (UNetConfig, "sd15-unet", "act_fn", "gelu"),
    (UNetConfig, "sd15-unet", "resnet_time_scale_shift", "scale_shift"),
    (UNetConfig, "sd15-unet", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
    (UNetConfig, "sd15-unet", "mid_block_type", 2),
    (UNetConfig, "sd15-unet", "only_cross_attention", [True, True, True, False]),
    (UNetConfig, "sd15-unet", "dual_cross_attention", True),
    (UNetConfig, "sd15-unet", "encoder_hid_dim_type", "text_proj"),
    (UNetConfig, "sd15-unet", "addition_embed_type", "image"),
    (UNetConfig, "sd15-unet", "down_block_types", ["AttnDownBlock2D"] * 4),
    (UNetConfig, "sd15-unet", "up_block_types", ["UpBlock2D"] * 3),
    (UNetConfig, "sd15-unet", "cross_attention_dim", [768, 768, 768, 1024]),
    (UNetConfig, "sd15-unet", "attention_head_dim", [8, 8]),
    (UNetConfig, "sd15-unet", "attention_head_dim", 7),
    (UNetConfig, "sd15-unet", "attention_head_dim", None),
    (UNetConfig, "sd15-unet", "norm_num_groups", 33),
    (UNetConfig, "sd15-unet", "norm_num_groups", None),
    (UNetConfig, "sd15-unet", "block_out_channels", "320"),
    (UNetConfig, "sd15-unet", "in_channels", 0),
    (UNetConfig, "sd15-unet", "transformer_layers_per_block", [1, 1, [2, 2], 1]),
    (UNetConfig, "sd15-unet", "some_new_option", 3),
    (UNetConfig, "sdxl-unet", "addition_time_embed_dim", None),
    (AutoencoderConfig, "sd15-vae", "shift_factor", 0.1),
    (AutoencoderConfig, "sd15-vae", "latents_mean", [0.0, 0.0, 0.0, 0.0]),
    (AutoencoderConfig, "sd15-vae", "down_block_types", ["AttnDownEncoderBlock2D"] * 4),
    (AutoencoderConfig, "sd15-vae", "act_fn", "relu"),
    (AutoencoderConfig, "sd15-vae", "norm_num_groups", 48),
    (AutoencoderConfig, "sd15-vae", "scaling_factor", 0.0),
    (TextEncoderConfig, "sd15-text-encoder", "hidden_act", "gelu_new"),
    (TextEncoderConfig, "sd15-text-encoder", "num_attention_heads", 7),
    (TextEncoderConfig, "sd15-text-encoder", "architectures", ["CLIPModel"]),
    (TextEncoderConfig, "sd15-text-encoder", "model_type", "t5"),
    (TextEncoderConfig, "sd15-text-encoder", "attention_dropout", 0.1),
]


@pytest.mark.parametrize(("kind", "name", "option", "value"), REFUSED)
def test_an_option_that_we_cannot_honour_is_named(kind, name, option, value):
    with pytest.raises(ConfigError, match=option):
        kind.from_json({**published(name), option: value})


@pytest.mark.parametrize("value", [-1, 0, "320", [320, "640"], [], {}, None, True, [320, 0]], ids=str)
def test_a_value_of_another_kind_is_refused(value):
    with pytest.raises(ConfigError, match="block_out_channels"):
        UNetConfig.from_json({**published("sd15-unet"), "block_out_channels": value})


@pytest.mark.parametrize("kind", [UNetConfig, AutoencoderConfig, TextEncoderConfig])
@pytest.mark.parametrize("data", [{}, {"width": 12}, [], "sd", None], ids=str)
def test_a_config_of_something_else_is_refused(kind, data):
    with pytest.raises(ConfigError):
        kind.from_json(data)


def test_options_that_are_switched_off_or_do_not_matter_are_read_over():
    data = published("sd15-unet")
    extra = {
        "_name_or_path": "somewhere",
        "some_new_option": None,
        "another": False,
        "addition_embed_type_num_heads": 8,
    }
    assert UNetConfig.from_json({**data, **extra}) == UNetConfig.from_json(data)


def test_heads_are_counted_whatever_the_option_is_called():
    """`attention_head_dim` 8 is eight heads in SD 1.x, and a list of counts in SD 2.x."""
    assert UNetConfig.from_json(published("sd15-unet")).attention_head_dim == 8
    assert UNetConfig.from_json(published("sd21-unet")).attention_head_dim == (5, 10, 20, 20)


def test_scales_of_the_latents_are_the_published_ones():
    assert AutoencoderConfig.from_json(published("sd15-vae")).scaling_factor == 0.18215
    assert AutoencoderConfig.from_json(published("sdxl-vae")).scaling_factor == 0.13025


def test_projection_is_told_by_the_architecture():
    assert not TextEncoderConfig.from_json(published("sdxl-text-encoder")).with_projection
    assert TextEncoderConfig.from_json(published("sdxl-text-encoder-2")).with_projection
