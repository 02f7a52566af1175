"""UNets whose self-attention is the identity, as diffusers has it, or is read, with the same result."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention as ReferenceAttention
from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0
from nn_reference import TOLERANCE, relative_error, unets
from test_unet import FAMILIES, SD1, SDXL, inputs, reference_output

from sfumato.errors import RequestError
from sfumato.nn.unet import UNet
from sfumato.nn.watched import perturbed, self_attentions, watched
from sfumato.request.guides import PerturbedAttention

LAYERS = {("mid",): "mid", ("down_blocks.1",): "down_blocks.1", ("up",): "up", ("down", "mid", "up"): ""}


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
@torch.no_grad()
def test_identity_attention_equals_that_of_diffusers(family: str, layers: tuple[str, ...], normal: Any) -> None:
    reference, ours = unets(FAMILIES[family])
    given = inputs(FAMILIES[family], normal)
    plain = reference_output(reference, given)
    half = PAGIdentitySelfAttnProcessor2_0()  # which takes the identity in the second half of a doubled batch
    for name, module in reference.named_modules():
        if isinstance(module, ReferenceAttention) and not module.is_cross_attention and name.startswith(LAYERS[layers]):
            module.set_processor(half)
    doubled = {name: torch.cat([value, value]) for name, value in given.items()}
    first, second = reference_output(reference, doubled).chunk(2)
    assert relative_error(first, plain) <= TOLERANCE
    assert relative_error(perturbed(ours, chosen(ours, *layers))(**given), second) <= TOLERANCE
    assert relative_error(second, plain) > 0.01
    assert relative_error(ours(**given), plain) <= TOLERANCE


@pytest.mark.parametrize("config", [SD1, SDXL], ids=["SD 1.x", "SDXL"])
@torch.no_grad()
def test_a_watched_network_answers_as_before_and_every_cell_gives_one(config: dict[str, Any], normal: Any) -> None:
    _, ours = unets(config)
    given = inputs(config, normal, 16, 24)
    second, attention = watched(ours)
    assert relative_error(second(**given), ours(**given)) <= TOLERANCE
    cells = (16 * 24) >> 2 * (ours.config.levels - 1)
    assert attention.received.shape == (2, cells)
    assert torch.allclose(attention.received.sum(1), torch.full((2,), float(cells)), rtol=1e-5)
    assert attention.received.std() > 0.01


def chosen(unet: UNet, *layers: str) -> list[str]:
    return PerturbedAttention(layers=layers).among(list(self_attentions(unet)))


def test_names_choose_the_blocks_that_begin_so() -> None:
    _, ours = unets(SD1)
    assert chosen(ours, "mid") == ["mid_block.attentions.0.transformer_blocks.0"]
    assert chosen(ours, "down_blocks.0.attentions.1") == ["down_blocks.0.attentions.1.transformer_blocks.0"]
    assert len(chosen(ours, "down")) == 6
    assert len(chosen(ours, "up", "up_blocks.1", "mid")) == 10
    for wrong in ("down_blocks.3", "down_blocks.0.attentions.10", "nose", "m"):
        with pytest.raises(RequestError, match=wrong) as caught:
            chosen(ours, "mid", wrong)
        assert caught.value.field == "perturbed_attention.layers"
