"""The text encoders against transformers' with the same random weights."""

from typing import Any

import pytest
import torch
from nn_reference import TOLERANCE, gradients, of_reference, reference_text_encoder, relative_error, text_encoders

from sfumato.nn.clip import TextEncoder, TextEncoderConfig

END = 98
VIT_L = {
    "architectures": ["CLIPTextModel"],
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "projection_dim": 20,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
KINDS: dict[str, dict[str, Any]] = {
    "ViT-L": VIT_L,
    "OpenCLIP H": {**VIT_L, "hidden_act": "gelu"},
    "OpenCLIP bigG": {**VIT_L, "hidden_act": "gelu", "architectures": ["CLIPTextModelWithProjection"]},
    "later config": {**VIT_L, "bos_token_id": 97, "eos_token_id": END},
    "short": {**VIT_L, "max_position_embeddings": 20, "layer_norm_eps": 1e-6},
}


def prompts(length: int) -> torch.Tensor:
    """Three rows: padded with the end token, padded with 0, and full."""
    ids = torch.randint(1, 97, (3, length), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = 97
    ids[0, 6:] = END
    ids[1, 9], ids[1, 10:] = END, 0
    ids[2, -1] = END
    return ids


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_state_equals_transformers(kind):
    reference, ours = text_encoders(KINDS[kind])
    ids = prompts(KINDS[kind].get("max_position_embeddings", 77))
    expected = reference(ids, output_hidden_states=True)
    found = ours(ids)
    assert len(found.hidden) == len(expected.hidden_states) == 4
    for mine, theirs in zip(found.hidden, expected.hidden_states, strict=True):
        assert relative_error(mine, theirs) <= TOLERANCE
    assert relative_error(found.last, expected.last_hidden_state) <= TOLERANCE
    pooled = expected.text_embeds if "bigG" in kind else expected.pooler_output
    assert relative_error(found.pooled, pooled) <= TOLERANCE


@torch.no_grad()
def test_final_norm_of_the_last_state_is_the_last():
    _, ours = text_encoders(VIT_L)
    states = ours(prompts(77))
    assert torch.equal(ours.final_norm(states.hidden[-1]), states.last)


def test_legacy_configs_pool_at_the_highest_id_and_later_ones_at_the_first_end_token():
    """An id added above the end token, as textual inversion adds them, misleads the legacy rule; as in transformers."""
    ids = torch.tensor([[97, 3, 99, END, END]])
    assert TextEncoder(TextEncoderConfig(vocab_size=100, hidden_size=64, eos_token_id=2)).end(ids).tolist() == [2]
    assert TextEncoder(TextEncoderConfig(vocab_size=100, hidden_size=64, eos_token_id=END)).end(ids).tolist() == [3]


@torch.no_grad()
def test_a_state_does_not_depend_on_the_tokens_after_it():
    _, ours = text_encoders(VIT_L)
    ids = prompts(77)
    changed = ids.clone()
    changed[:, 40:] = 7
    assert relative_error(ours(changed).last[:, :40], ours(ids).last[:, :40]) <= 1e-6


def test_gradients_equal_those_of_transformers():
    reference, ours = text_encoders(KINDS["OpenCLIP bigG"])
    ids = prompts(77)
    reference(ids).text_embeds.square().mean().backward()
    wanted = {name: value.grad for name, value in reference.named_parameters()}
    ours(ids).pooled.square().mean().backward()
    found = gradients(ours)
    whole = torch.cat([wanted[name].flatten() for name in found])
    assert relative_error(torch.cat([gradient.flatten() for gradient in found.values()]), whole) <= TOLERANCE


def test_too_many_tokens_are_refused():
    _, ours = text_encoders(KINDS["short"])
    with pytest.raises(ValueError, match="21 tokens; this text encoder takes at most 20"):
        ours(torch.ones(1, 21, dtype=torch.int64))


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_builds_the_same_network_from_our_config(kind):
    config = TextEncoderConfig.from_json(KINDS[kind])
    with torch.device("meta"):
        theirs = of_reference(reference_text_encoder(config.to_json()))
        ours = TextEncoder(config).state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {name: v.shape for name, v in ours.items()}
    assert TextEncoderConfig.from_json(config.to_json()) == config
