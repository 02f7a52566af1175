"""ControlNets against diffusers' with the same random weights, alone and inside a UNet."""

from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from nn_reference import TOLERANCE, paired, relative_error, unets, uninitialized
from test_unet import SD1, SDXL, SMALL, inputs

from sfumato.errors import ConfigError
from sfumato.nn.additions import Additions
from sfumato.nn.controlnet import ControlNet, ControlNetConfig
from sfumato.nn.unet import UNet, UNetConfig

UP = ("up_block_types", "reverse_transformer_layers_per_block", "_class_name")


def control(unet: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The configuration of a ControlNet for a UNet."""
    shared = {key: value for key, value in unet.items() if key not in UP}
    return {"_class_name": "ControlNetModel", **shared, "upcast_attention": False, **changes}


FAMILIES = {
    "SD 1.x": (SD1, {}),
    "SD 2.x": ({**SD1, "attention_head_dim": [2, 4, 6, 6], "use_linear_projection": True}, {}),
    "SDXL": (SDXL, {}),
    "small, of a grey picture in half the steps": (
        SMALL,
        {"conditioning_channels": 1, "conditioning_embedding_out_channels": [8, 16, 24]},
    ),
    "BGR": (SMALL, {"controlnet_conditioning_channel_order": "bgr"}),
    "shuffle": (SMALL, {"global_pool_conditions": True}),
}


def controlnets(config: dict[str, Any]) -> tuple[ControlNetModel, ControlNet]:
    """The reference's and ours, sharing their weights."""
    return paired(uninitialized(ControlNetModel, config), ControlNet, ControlNetConfig.from_json(config))


def both(unet: dict[str, Any], changes: dict[str, Any], normal: Any, size: tuple[int, int] = (16, 12)) -> Any:
    """(reference's, ours) outputs of a ControlNet, and what it was given."""
    config = control(unet, **changes)
    reference, ours = controlnets(config)
    given = inputs(unet, normal, *size)
    stride = ours.control.stride
    picture = normal(2, config.get("conditioning_channels", 3), size[0] * stride, size[1] * stride).sigmoid()
    added = {"text_embeds": given["pooled"], "time_ids": given["size"]} if "pooled" in given else None
    expected = reference(given["x"], given["timestep"], given["context"], picture, added_cond_kwargs=added)
    found = ours(**given, seen=ours.see(picture))
    return expected, found, given


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_controlnet_equals_that_of_diffusers(family: str, normal: Any) -> None:
    expected, found, _ = both(*FAMILIES[family], normal)
    assert len(found.skips) == len(expected.down_block_res_samples)
    for mine, theirs in zip(found.skips, expected.down_block_res_samples, strict=True):
        assert relative_error(mine, theirs) <= TOLERANCE
    assert relative_error(found.middle, expected.mid_block_res_sample) <= TOLERANCE


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL", "shuffle"])
@torch.no_grad()
def test_a_unet_adds_what_a_controlnet_makes_as_diffusers_does(family: str, normal: Any) -> None:
    unet, changes = FAMILIES[family]
    expected, found, given = both(unet, changes, normal, (18, 13))  # a size that does not halve evenly
    reference, ours = unets(unet)
    added = {"text_embeds": given["pooled"], "time_ids": given["size"]} if "pooled" in given else None
    theirs = reference(
        given["x"],
        given["timestep"],
        given["context"],
        added_cond_kwargs=added,
        down_block_additional_residuals=expected.down_block_res_samples,
        mid_block_additional_residual=expected.mid_block_res_sample,
    ).sample
    mine = ours(**given, added=Additions(skips=found.skips, middle=found.middle))
    assert relative_error(mine, theirs) <= TOLERANCE
    assert relative_error(ours(**given), theirs) > 0.01  # it does something


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_builds_the_same_controlnet_from_our_config(family: str) -> None:
    unet, changes = FAMILIES[family]
    config = ControlNetConfig.from_json(control(unet, **changes))
    with torch.device("meta"):
        theirs = ControlNetModel.from_config(config.to_json())
        ours = ControlNet(config)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert ControlNetConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("channels", [4, 9])
@torch.no_grad()
def test_a_new_controlnet_of_a_unet_changes_no_bit_of_it(channels: int, normal: Any) -> None:
    unet = UNet(UNetConfig.from_json({**SMALL, "in_channels": channels})).eval()
    new = ControlNet.of(unet)
    given = inputs({**SMALL, "in_channels": channels}, normal)
    alone = {**given, "x": given["x"][:, :4]}
    residuals = new(**alone, seen=new.see(normal(2, 3, 128, 128)))
    assert all(not each.any() for each in (*residuals.skips, residuals.middle))
    assert torch.equal(unet(**given, added=Additions(residuals.skips, residuals.middle)), unet(**given))
    assert torch.equal(new.down_blocks[1].resnets[0].conv1.weight, unet.down_blocks[1].resnets[0].conv1.weight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"controlnet_conditioning_channel_order": "gbr"}, "rgb or bgr"),
        ({"conditioning_channels": 0}, "conditioning_channels"),
        ({"conditioning_embedding_out_channels": 16}, "conditioning_embedding_out_channels"),
        ({"class_embed_type": "projection"}, "class_embed_type"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ControlNetConfig.from_json(control(SD1, **change))
