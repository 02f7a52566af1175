"""CLIP's vision tower against transformers', and IP-Adapters against diffusers', with the same weights."""

from typing import Any

import pytest
import torch
from diffusers.models.embeddings import IPAdapterFullImageProjection, IPAdapterPlusImageProjection
from nn_reference import TOLERANCE, paired, randomize, relative_error
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sfumato.errors import ConfigError
from sfumato.nn.clip_vision import PUBLISHED, ImageEncoder, VisionConfig, VisionStates
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig, Prompter

SMALL = VisionConfig(
    hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=56, projection_dim=20
)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
@torch.no_grad()
def test_an_image_encoder_equals_that_of_transformers(act: str, normal: Any) -> None:
    stated = {**SMALL.to_json(), "hidden_act": act}
    reference, ours = paired(
        CLIPVisionModelWithProjection(CLIPVisionConfig(**stated)), ImageEncoder, VisionConfig.from_json(stated)
    )
    pixels = normal(2, 3, 56, 56)
    expected, found = reference(pixels, output_hidden_states=True), ours(pixels)
    assert relative_error(found.embedding, expected.image_embeds) <= TOLERANCE
    assert relative_error(found.hidden, expected.hidden_states[-2]) <= TOLERANCE
    with pytest.raises(ValueError, match="sees 56x56"):
        ours(normal(1, 3, 28, 56))


@pytest.mark.parametrize("config", PUBLISHED, ids=["H", "bigG", "L"])
def test_a_published_image_encoder_has_the_names_and_shapes_of_transformers(config: VisionConfig) -> None:
    with torch.device("meta"):
        reference = CLIPVisionModelWithProjection(CLIPVisionConfig(**config.to_json()))
        ours = ImageEncoder(config)
    found = {name: each.shape for name, each in ours.state_dict().items()}
    assert found == {name: each.shape for name, each in reference.state_dict().items()}
    assert VisionConfig.from_json(config.to_json()) == config


def config(form: Any, **changes: Any) -> IPAdapterConfig:
    return IPAdapterConfig(form, **{"seen": 48, "context": 24, "widths": (32, 64), **changes})


def states(normal: Any) -> VisionStates:
    return VisionStates(normal(2, 17, 48), normal(2, 48))


@torch.no_grad()
def test_a_resampler_equals_that_of_diffusers(normal: Any) -> None:
    ours = IPAdapter(config("plus", tokens=5, inner=128, layers=2, heads=2)).eval()
    randomize(ours)
    mine = ours.image_proj.state_dict()
    reference = IPAdapterPlusImageProjection(48, 24, 128, depth=2, dim_head=64, heads=2, num_queries=5)
    names = {
        "0.norm1": "ln0", "0.norm2": "ln1", "0.to_q": "attn.to_q", "0.to_out": "attn.to_out.0", "1.0": "ff.0",
        "1.1": "ff.1.net.0.proj", "1.3": "ff.1.net.2",
    }  # fmt: skip
    theirs = {}
    for name, value in mine.items():
        start, _, layer = name.partition("layers.")
        number, _, rest = layer.partition(".")
        stem, _, part = rest.rpartition(".")
        if not layer:
            theirs[name] = value
        elif stem == "0.to_kv":
            key, values = value.chunk(2)
            theirs |= {f"layers.{number}.attn.to_k.weight": key, f"layers.{number}.attn.to_v.weight": values}
        else:
            theirs[f"{start}layers.{number}.{names[stem]}.{part}"] = value
    reference.load_state_dict(theirs)
    given = states(normal)
    assert relative_error(ours(given), reference(given.hidden)) <= TOLERANCE


@torch.no_grad()
def test_full_tokens_equal_those_of_diffusers(normal: Any) -> None:
    ours = IPAdapter(config("full")).eval()
    randomize(ours)
    reference = IPAdapterFullImageProjection(48, 24)
    names = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
    state = ours.image_proj.state_dict()
    reference.load_state_dict({names[n.rpartition(".")[0]] + "." + n.rpartition(".")[2]: v for n, v in state.items()})
    given = states(normal)
    assert relative_error(ours(given), reference(given.hidden)) <= TOLERANCE


def test_the_middle_comes_last_in_the_files_and_between_the_ways_in_the_unet() -> None:
    adapter = IPAdapter(config("plain", widths=(1, 2, 3, 4, 5)))
    prompter = Prompter(adapter, ImageEncoder(SMALL), (2, 2))
    assert [each.to_k_ip.out_features for each in prompter.layers] == [1, 2, 5, 3, 4]
    assert list(adapter.ip_adapter) == ["1", "3", "5", "7", "9"]


@pytest.mark.parametrize(("change", "told"), [({"hidden_act": "relu"}, "quick_gelu"), ({"patch_size": 15}, "divisors")])
def test_a_config_that_cannot_be_honoured_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        VisionConfig.from_json({**SMALL.to_json(), **change})
