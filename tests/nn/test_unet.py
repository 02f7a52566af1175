"""The UNet against diffusers' with the same random weights, in the shapes of every family."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from nn_reference import TOLERANCE, gradients, relative_error, unets

from sfumato.nn.unet import UNet, UNetConfig

SD1 = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [32, 64, 96, 96],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 24,
    "norm_num_groups": 32,
}
SDXL = {
    **SD1,
    "block_out_channels": [32, 64, 96],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [2, 4, 6],
    "transformer_layers_per_block": [1, 2, 3],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 20 + 6 * 8,
    "upcast_attention": None,
}
REFINER = {
    **SDXL,
    "block_out_channels": [32, 64, 96, 96],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [2, 4, 6, 6],
    "transformer_layers_per_block": 2,
    "projection_class_embeddings_input_dim": 20 + 5 * 8,
}
SMALL = {
    **SD1,
    "block_out_channels": [48, 96, 192],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "attention_head_dim": [3, 6, 12],
}
FAMILIES: dict[str, dict[str, Any]] = {
    "SD 1.x": SD1,
    "SD 2.x": {**SD1, "attention_head_dim": [2, 4, 6, 6], "use_linear_projection": True, "upcast_attention": True},
    "inpainting": {**SD1, "in_channels": 9},
    "SDXL": SDXL,
    "SDXL refiner": REFINER,
    "small": SMALL,
    "other embedding": {**SMALL, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6},
    "layers differ by level": {**SD1, "layers_per_block": [1, 2, 1, 2]},
    "blocks differ by layer": {
        **SDXL,
        "transformer_layers_per_block": [1, [1, 2], [3, 1]],
        "reverse_transformer_layers_per_block": [[1, 3, 1], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",  # as SSD-1B and Vega
    },
    "no lowest block": {**SMALL, "mid_block_type": None},  # as BK-SDM's small and tiny
}


def inputs(config: dict[str, Any], normal: Any, height: int = 16, width: int = 16) -> dict[str, torch.Tensor]:
    given = {
        "x": normal(2, config.get("in_channels", 4), height, width),
        "timestep": torch.tensor([3.0, 481.25]),  # a fraction: timesteps are continuous
        "context": normal(2, 7, 24),
    }
    if "addition_embed_type" in config:
        ids = (config["projection_class_embeddings_input_dim"] - 20) // 8
        given["pooled"] = normal(2, 20)
        given["size"] = torch.tensor([[1024.0, 768.0, 0.0, 8.0, 1024.0, 6.0], [512.0, 640.0, 4.0, 0.0, 900.0, 2.5]])[
            :, :ids
        ]
    return given


def reference_output(network: UNet2DConditionModel, given: dict[str, torch.Tensor]) -> torch.Tensor:
    added = {"text_embeds": given["pooled"], "time_ids": given["size"]} if "pooled" in given else None
    return network(given["x"], given["timestep"], given["context"], added_cond_kwargs=added).sample


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_unet_equals_diffusers(family, memory, normal):
    reference, ours = unets(FAMILIES[family])
    given = inputs(FAMILIES[family], normal)
    expected = reference_output(reference, given)
    given["x"] = given["x"].to(memory_format=memory)
    assert relative_error(ours(**given), expected) <= TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(9, 7), (18, 13), (8, 24)])
@torch.no_grad()
def test_unet_equals_diffusers_at_sizes_that_do_not_halve_evenly(height, width, normal):
    reference, ours = unets(SD1)
    given = inputs(SD1, normal, height, width)
    assert relative_error(ours(**given), reference_output(reference, given)) <= TOLERANCE


@torch.no_grad()
def test_large_maps_are_doubled_as_diffusers_doubles_them(normal):
    """From 64x64 cells on, doubling is a transposed convolution."""
    config = {**SMALL, "block_out_channels": [16, 16, 16], "attention_head_dim": 2}
    reference, ours = unets(config)
    given = inputs(config, normal, 128, 132)
    assert relative_error(ours(**given), reference_output(reference, given)) <= TOLERANCE


@torch.no_grad()
def test_unet_leaves_its_inputs_alone(normal):
    _, ours = unets(SDXL)
    given = inputs(SDXL, normal)
    before = {name: value.clone() for name, value in given.items()}
    ours(**given)
    assert all(torch.equal(given[name], before[name]) for name in given)


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
def test_gradients_equal_those_of_diffusers(family, normal):
    reference, ours = unets(FAMILIES[family])
    given = inputs(FAMILIES[family], normal)
    reference_output(reference, given).square().mean().backward()
    expected = gradients(reference)
    ours(**given).square().mean().backward()
    found = gradients(ours)
    whole = torch.cat([expected[name].flatten() for name in found])
    assert relative_error(torch.cat([gradient.flatten() for gradient in found.values()]), whole) <= TOLERANCE


def test_gradient_checkpointing_changes_no_gradient(normal):
    _, ours = unets(SDXL)
    given = inputs(SDXL, normal)
    ours(**given).square().mean().backward()
    expected = gradients(ours)
    ours.gradient_checkpointing = True
    ours(**given).square().mean().backward()
    found = gradients(ours)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_unet_trains_in_bfloat16_autocast(normal):
    """The gradient points the same way: bfloat16 has 8 bits, and an error of 2^-8 at every operation adds up to %."""
    _, ours = unets(SD1)
    ours = ours.to(memory_format=torch.channels_last)
    given = inputs(SD1, normal)
    ours(**given).square().mean().backward()
    expected = torch.cat([gradient.flatten() for gradient in gradients(ours).values()])
    with torch.autocast("cpu", torch.bfloat16):
        loss = ours(**given).float().square().mean()
    loss.backward()
    found = torch.cat([gradient.flatten() for gradient in gradients(ours).values()])
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.999


@torch.no_grad()
def test_inference_and_training_modes_give_the_same_output(normal):
    _, ours = unets(SMALL)
    given = inputs(SMALL, normal)
    with torch.enable_grad():
        recorded = ours(**given)
    # Attention that will need a gradient is written out, in another order of operations.
    assert relative_error(ours(**given), recorded) <= TOLERANCE


def test_added_conditions_are_asked_for_and_refused(normal):
    _, xl = unets(SDXL)
    given = inputs(SDXL, normal)
    with pytest.raises(ValueError, match="needs pooled text and size"):
        xl(given["x"], given["timestep"], given["context"])
    with pytest.raises(ValueError, match="takes 68"):
        xl(**{**given, "size": given["size"][:, :5]})
    _, plain = unets(SD1)
    with pytest.raises(ValueError, match="takes no pooled"):
        plain(**given)


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_builds_the_same_network_from_our_config(family):
    config = UNetConfig.from_json(FAMILIES[family])
    with torch.device("meta"):
        theirs = UNet2DConditionModel.from_config(config.to_json())
        ours = UNet(config)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert UNetConfig.from_json(config.to_json()) == config
