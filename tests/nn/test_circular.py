"""Networks on maps without edges: rolling what goes in rolls what comes out, and the weights are the network's own."""

from typing import Any

import pytest
import torch
from nn_reference import TOLERANCE, autoencoders, relative_error, unets
from test_autoencoder import SMALL as AUTOENCODER
from test_unet import SD1, SDXL, inputs, reference_output

from sfumato.nn.circular import CircularConv2d, circular

DIRECTIONS = {"x": (True, False), "y": (False, True), "both": (True, True)}
STRIDE = 8  # of the UNet's four levels: what its latent may be rolled by


def rolled(x: torch.Tensor, tiling: str, amount: int) -> torch.Tensor:
    along_x, along_y = DIRECTIONS[tiling]
    return x.roll((amount * along_y, 2 * amount * along_x), (2, 3))


def other(tiling: str) -> str:
    return {"x": "y", "y": "x", "both": "x"}[tiling]


@pytest.mark.parametrize("tiling", DIRECTIONS)
@torch.no_grad()
def test_rolling_the_latent_rolls_what_the_unet_predicts(tiling: str, normal: Any) -> None:
    x, y = DIRECTIONS[tiling]
    _, plain = unets(SD1)
    given = inputs(SD1, normal, 2 * STRIDE, 4 * STRIDE)
    network = circular(plain, x=x, y=y)
    expected = rolled(network(**given), tiling, STRIDE)
    assert relative_error(network(**{**given, "x": rolled(given["x"], tiling, STRIDE)}), expected) <= TOLERANCE
    # the plain network sees its edges, and the circular one sees those in the other direction
    assert relative_error(plain(**{**given, "x": rolled(given["x"], tiling, STRIDE)}), expected) > 0.1
    if tiling != "both":
        across = rolled(network(**given), other(tiling), STRIDE)
        assert relative_error(network(**{**given, "x": rolled(given["x"], other(tiling), STRIDE)}), across) > 0.01


@pytest.mark.parametrize("cells", [1, 3])
@pytest.mark.parametrize("tiling", DIRECTIONS)
@torch.no_grad()
def test_rolling_by_any_cell_rolls_what_the_autoencoder_gives(tiling: str, cells: int, normal: Any) -> None:
    x, y = DIRECTIONS[tiling]
    _, plain = autoencoders(AUTOENCODER)
    network = circular(plain, x=x, y=y)
    latent, pixels = normal(1, 4, 6, 8), normal(1, 3, 48, 64).clamp(-1, 1)
    decoded = network.decode(latent)
    assert (
        relative_error(network.decode(rolled(latent, tiling, cells)), rolled(decoded, tiling, 8 * cells)) <= TOLERANCE
    )
    encoded = network.encode(pixels)
    found = network.encode(rolled(pixels, tiling, 8 * cells))
    assert relative_error(found.mean, rolled(encoded.mean, tiling, cells)) <= TOLERANCE
    assert relative_error(found.std, rolled(encoded.std, tiling, cells)) <= TOLERANCE


@torch.no_grad()
def test_a_large_map_decodes_without_an_edge_too(normal: Any) -> None:
    """Where the plain decoder doubles maps by transposed convolutions, which would see an edge."""
    _, plain = autoencoders(AUTOENCODER)
    network = circular(plain, x=True, y=True)
    latent = normal(1, 4, 32, 40)
    found = network.decode(rolled(latent, "both", 5))
    assert relative_error(found, rolled(network.decode(latent), "both", 40)) <= TOLERANCE


@pytest.mark.parametrize("config", [SD1, SDXL], ids=["SD 1.x", "SDXL"])
@torch.no_grad()
def test_unet_without_edges_equals_diffusers_with_circular_padding(config: dict[str, Any], normal: Any) -> None:
    """The way that A1111 goes: the padding mode of every convolution."""
    reference, ours = unets(config)
    for module in reference.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [module.padding[0]] * 4
    given = inputs(config, normal)
    expected = reference_output(reference, given)
    assert relative_error(circular(ours, x=True, y=True)(**given), expected) <= TOLERANCE


@torch.no_grad()
def test_a_convolution_sees_the_opposite_edge(normal: Any) -> None:
    conv = torch.nn.Conv2d(2, 3, 3, stride=2)
    x = normal(1, 2, 6, 8)
    around = torch.cat([x, x[..., :1]], dim=3)  # one column more, the first
    expected = conv(torch.cat([around, torch.zeros(1, 2, 1, 9)], dim=2))
    assert torch.allclose(CircularConv2d(conv, x=True, y=False, before=0, after=1)(x), expected, atol=1e-6)


@torch.no_grad()
def test_the_second_network_shares_the_weights_and_leaves_the_first(normal: Any) -> None:
    for plain, given in ((unets(SD1)[1], inputs(SD1, normal)), (autoencoders(AUTOENCODER)[1].encoder, None)):
        given = given or {"x": normal(1, 3, 16, 16)}
        before = plain(**given)
        second = circular(plain, x=True, y=True)
        assert torch.equal(plain(**given), before)
        first, state = plain.state_dict(), second.state_dict()
        assert first.keys() == state.keys()
        assert all(first[name].data_ptr() == state[name].data_ptr() for name in first)
        second(**given)
