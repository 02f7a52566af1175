"""Other people's names: the rules that we generate against the conversions of diffusers and OpenCLIP's own network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from weights_files import single_file_shapes
from weights_pipelines import KINDS

from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta
from sfumato.weights.families import FAMILIES, blueprint
from sfumato.weights.files import open_file
from sfumato.weights.ldm import OLD_ATTENTION, ema_name, old_autoencoder_naming, unet_naming
from sfumato.weights.load import load
from sfumato.weights.naming import from_theirs, to_theirs
from sfumato.weights.openclip import openclip_naming
from sfumato.weights.save import save_file
from sfumato.weights.single import text_prefixes

Pipelines = Callable[[str], tuple[Any, Path]]


def meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_full_size_unet_names_are_those_that_diffusers_converts_from(name: str) -> None:
    build = blueprint(FAMILIES[name])
    config = build.unet.to_json()
    with torch.device("meta"):
        reference = UNet2DConditionModel.from_config(config)
    converted = convert_ldm_unet_checkpoint(meta(single_file_shapes(build)), config)
    assert shapes(converted) == shapes(reference.state_dict())


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_full_size_autoencoder_names_are_those_that_diffusers_converts_from(name: str) -> None:
    build = blueprint(FAMILIES[name])
    config = build.autoencoder.to_json()
    with torch.device("meta"):
        reference = AutoencoderKL.from_config(config)
    converted = convert_ldm_vae_checkpoint(meta(single_file_shapes(build)), config)
    assert shapes(converted) == shapes(reference.state_dict())


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl", "sdxl-refiner"])
def test_full_size_text_encoder_names_are_those_that_diffusers_converts_from(name: str) -> None:
    build = blueprint(FAMILIES[name])
    tensors = meta(single_file_shapes(build))
    for config, prefix in zip(build.text, text_prefixes(build.family.text), strict=True):
        made = CLIPTextModelWithProjection if config.with_projection else CLIPTextModel
        with torch.device("meta"):
            reference = made(CLIPTextConfig(**config.to_json()))
        if prefix.endswith("transformer."):
            converted = convert_ldm_clip_checkpoint(tensors)
        else:
            # diffusers splits query, key and value at the width of the text projection, or the network's own.
            converted = convert_open_clip_checkpoint(reference, tensors, prefix)
        expected = {
            f"text_model.{name.removeprefix('text_model.')}": s for name, s in shapes(reference.state_dict()).items()
        }
        if config.with_projection:
            expected["text_projection.weight"] = expected.pop("text_model.text_projection.weight")
        assert shapes(converted) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_file_of_ours_has_the_weights_that_diffusers_converts_it_to(
    pipelines: Pipelines, tmp_path: Path, kind: str
) -> None:
    pipeline, folder = pipelines(kind)
    tensors = dict(open_file(save_file(load(folder), tmp_path / "one.safetensors")))
    unet = convert_ldm_unet_checkpoint(tensors, pipeline.unet.config)
    vae = convert_ldm_vae_checkpoint(tensors, pipeline.vae.config)
    for converted, reference in ((unet, pipeline.unet.state_dict()), (vae, pipeline.vae.state_dict())):
        assert converted.keys() == reference.keys()
        assert all(torch.equal(converted[name], reference[name]) for name in reference)


def test_a_text_encoder_in_openclip_names_gives_what_openclip_gives() -> None:
    torch.manual_seed(3)
    width = 32
    reference = open_clip.CLIP(
        embed_dim=24,
        vision_cfg=open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=8, image_size=16),
        text_cfg=open_clip.CLIPTextCfg(context_length=77, vocab_size=100, width=width, heads=2, layers=3),
    ).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    config = TextEncoderConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_act="gelu",
        projection_dim=24,
        eos_token_id=99,
        with_projection=True,
    )
    ours = TextEncoder(config)
    theirs = dict(reference.state_dict())
    ours.load_state_dict(dict(from_theirs(openclip_naming(config), theirs)), strict=True)
    ids = torch.randint(0, 98, (2, 77), generator=torch.Generator().manual_seed(5))
    ids[:, 40:] = 0
    ids[:, 39] = 99
    with torch.no_grad():
        pooled, expected = ours(ids).pooled, reference.encode_text(ids)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)  # float32, sums in another order
    back = to_theirs(openclip_naming(config), ours.state_dict())
    assert all(torch.equal(back[name], theirs[name]) for name in back)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_name_of_theirs_stands_for_one_tensor_of_ours(name: str) -> None:
    build = blueprint(FAMILIES[name])
    names = list(on_meta(lambda: UNet(build.unet)).state_dict())
    naming = unet_naming(build.unet, names)
    assert len({rule.theirs for rule in naming}) == len(names)
    assert [rule.ours for rule in naming] == [(name,) for name in names]


def test_old_attention_names_are_those_that_diffusers_renames() -> None:
    names = ["encoder.mid_block.attentions.0.to_q.weight", "decoder.mid_block.attentions.0.to_out.0.bias", "x.to_q.y"]
    assert [rule.theirs for rule in old_autoencoder_naming(names)] == [
        "encoder.mid_block.attentions.0.query.weight",
        "decoder.mid_block.attentions.0.proj_attn.bias",
        "x.to_q.y",
    ]
    assert set(OLD_ATTENTION.values()) == {"query", "key", "value", "proj_attn"}


def test_averaged_copies_are_named_as_compvis_names_them() -> None:
    # ldm/modules/ema.py: the name of the parameter within `model`, without its dots
    name = "model.diffusion_model.input_blocks.0.0.weight"
    assert ema_name(name) == "model_ema.diffusion_modelinput_blocks00weight"
