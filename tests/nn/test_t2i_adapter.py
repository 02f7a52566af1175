"""T2I-Adapters against diffusers' with the same random weights, alone and inside a UNet."""

from typing import Any

import pytest
import torch
from diffusers import T2IAdapter as Reference
from nn_reference import TOLERANCE, paired, relative_error, unets, uninitialized
from test_unet import SD1, SDXL, inputs

from sfumato.errors import ConfigError
from sfumato.nn.additions import Additions
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig

FULL = {"_class_name": "T2IAdapter", "in_channels": 3, "channels": [32, 64, 96, 96], "num_res_blocks": 2}
FULL |= {"downscale_factor": 8, "adapter_type": "full_adapter"}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": (FULL, SD1),
    "full, of a grey picture": ({**FULL, "in_channels": 1}, SD1),
    "light": ({**FULL, "channels": [32, 64, 96], "num_res_blocks": 4, "adapter_type": "light_adapter"}, SD1),
    "XL": ({**FULL, "downscale_factor": 16, "adapter_type": "full_adapter_xl"}, SDXL),
}


def adapters(config: dict[str, Any]) -> tuple[Reference, T2IAdapter]:
    """The reference's and ours, sharing their weights."""
    return paired(uninitialized(Reference, config), T2IAdapter, T2IAdapterConfig.from_json(config))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_adapter_and_a_unet_with_it_equal_those_of_diffusers(kind: str, normal: Any) -> None:
    config, unet = KINDS[kind]
    reference, ours = adapters(config)
    picture = normal(2, config["in_channels"], 160, 96).sigmoid()  # 20 x 12 cells, which do not halve evenly
    expected, found = reference(picture), ours(picture)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert relative_error(mine, theirs) <= TOLERANCE
    given = inputs(unet, normal, 20, 12)
    theirs_unet, our_unet = unets(unet)
    added = {"text_embeds": given["pooled"], "time_ids": given["size"]} if "pooled" in given else None
    output = theirs_unet(
        given["x"],
        given["timestep"],
        given["context"],
        added_cond_kwargs=added,
        down_intrablock_additional_residuals=[each.clone() for each in expected],
    ).sample
    assert relative_error(our_unet(**given, added=Additions(levels=found)), output) <= TOLERANCE
    assert relative_error(our_unet(**given), output) > 0.01  # it does something


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_builds_the_same_adapter_from_our_config(kind: str) -> None:
    config = T2IAdapterConfig.from_json(KINDS[kind][0])
    with torch.device("meta"):
        theirs = Reference.from_config(config.to_json())
        ours = T2IAdapter(config)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert T2IAdapterConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("change", "told"), [({"adapter_type": "heavy"}, "full_adapter"), ({"in_channels": 4}, "grey")]
)
def test_a_config_that_cannot_be_honoured_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        T2IAdapterConfig.from_json({**FULL, **change})
