"""Low-rank adapters: the closed form, beside the weights and merged into them, and every bit back afterwards."""

from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
import torch
import torch.nn.functional as F
from nn_reference import randomize, relative_error
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.nn.blocks import Upsample
from sfumato.nn.clip import TextEncoder
from sfumato.nn.lora import (
    ATTENTION,
    CONVOLUTIONS,
    TEXT,
    TRANSFORMERS,
    Adapter,
    Adapters,
    Target,
    adaptable,
    changed_weight,
    create,
    merge,
    twin,
)
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.weights.families import SD15, SDXL, blueprint

Normal = Callable[..., Tensor]
CONFIG = UNetConfig(
    block_out_channels=(32, 64),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    cross_attention_dim=24,
    attention_head_dim=4,
    norm_num_groups=8,
)
EVERYWHERE = (
    Target("*.attn2.to_[kv]", 2, 1.0),
    Target(TRANSFORMERS, 4, 6.0),
    Target(CONVOLUTIONS, 3),
    Target("*", 2, 0.5),  # samplers, the first and last convolutions, the timestep's embedding
)
MERGED = 1e-5  # of the whole output: two products in place of one, in float32


@pytest.fixture
def unet() -> UNet:
    network = UNet(CONFIG)
    randomize(network)
    return network.eval().requires_grad_(False)


def trained(network: nn.Module, targets: tuple[Target, ...] = EVERYWHERE, seed: int = 1) -> Adapters:
    """Adapters that have learnt something: their `up` is not zero."""
    adapters = create(network, targets, seed=seed)
    generator = torch.Generator().manual_seed(seed + 100)
    for _, adapter in adapters.items():
        adapter.up.data.normal_(0, 0.2, generator=generator)
    return adapters.requires_grad_(False)


@torch.no_grad()
def run(network: UNet) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    x, context = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 24, generator=generator)
    return network(x, torch.tensor([17.0, 801.0]), context)


def bits(network: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("alpha", [None, 1.0, 12.5])
def test_a_linear_layer_gets_alpha_over_rank_times_up_down(normal: Normal, alpha: float | None) -> None:
    layer, x = nn.Linear(7, 5), normal(3, 7)
    down, up = normal(4, 7), normal(5, 4)
    scale = 1.0 if alpha is None else alpha / 4
    expected = layer.weight + 0.6 * scale * up @ down
    network = nn.Sequential(layer)
    merge(network, [(Adapters({"0": Adapter(down, up, alpha)}), 0.6)])
    torch.testing.assert_close(layer.weight, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(network(x), F.linear(x, expected, layer.bias), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0)], ids=["3x3", "strided", "1x1", "skip"]
)
def test_a_convolution_gets_the_composition_of_both(normal: Normal, kernel: int, stride: int, padding: int) -> None:
    layer, x = nn.Conv2d(6, 8, kernel, stride=stride, padding=padding), normal(2, 6, 9, 9)
    down, up = normal(3, 6, kernel, kernel), normal(8, 3, 1, 1)
    network, adapters = nn.Sequential(layer), Adapters({"0": Adapter(down, up, 2.0)})
    first = nn.Conv2d(6, 3, kernel, stride=stride, padding=padding, bias=False)
    second = nn.Conv2d(3, 8, 1, bias=False)
    first.weight, second.weight = nn.Parameter(down), nn.Parameter(up)
    expected = layer(x) + 2.0 / 3 * second(first(x))
    attached = adapters.attach(network)
    assert relative_error(network(x), expected) < 1e-6
    attached.detach()
    with torch.no_grad():
        merge(network, [(adapters, 1.0)])
        assert relative_error(network(x), expected) < 1e-6


def test_a_1x1_convolution_and_a_linear_layer_take_either_form(normal: Normal) -> None:
    down, up = normal(2, 6), normal(8, 2)
    flat, square = Adapter(down, up), Adapter(down[:, :, None, None], up[:, :, None, None])
    for layer, x in ((nn.Linear(6, 8), normal(1, 6)), (nn.Conv2d(6, 8, 1), normal(1, 6, 4, 4))):
        assert flat.fits(layer) and square.fits(layer)
        assert torch.equal(changed_weight(layer, [(flat, 0.5)]), changed_weight(layer, [(square, 0.5)]))
        assert torch.equal(flat(layer, x), square(layer, x))
    assert not flat.fits(nn.Conv2d(6, 8, 3))
    assert not flat.fits(nn.Conv2d(12, 8, 1, groups=2))


def test_new_adapters_change_no_bit_and_only_they_learn(unet: UNet) -> None:
    before, weights = run(unet), bits(unet)
    unet.requires_grad_(True)
    adapters = create(unet, EVERYWHERE, seed=3)
    attached = adapters.attach(unet)
    assert torch.equal(run(unet), before)
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    optimizer = torch.optim.SGD(adapters.parameters(), lr=0.1)
    for _ in range(2):  # in the first step only `up` has a gradient, as it is zero
        loss = unet(torch.ones(1, 4, 8, 8), torch.tensor([5.0]), torch.ones(1, 3, 24)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapters.parameters())
    assert not torch.equal(run(unet), before)
    attached.detach()
    assert bits(unet) == weights
    assert torch.equal(run(unet), before)
    assert all(parameter.requires_grad for parameter in unet.parameters())


def test_gradients_are_the_same_with_gradient_checkpointing(unet: UNet) -> None:
    adapters = trained(unet).requires_grad_(True)
    adapters.attach(unet)
    found = []
    for unet.gradient_checkpointing in (False, True):
        adapters.zero_grad()
        unet(torch.ones(1, 4, 8, 8), torch.tensor([5.0]), torch.ones(1, 3, 24)).square().mean().backward()
        found.append([parameter.grad.clone() for parameter in adapters.parameters()])
    for plain, again in zip(*found, strict=True):
        assert relative_error(again, plain) < 1e-6


def test_merged_equals_attached_and_undoing_gives_the_same_tensors_back(unet: UNet) -> None:
    before, weights, first = run(unet), bits(unet), trained(unet)
    tensors = {name: tensor.data_ptr() for name, tensor in unet.state_dict().items()}
    second = trained(unet, (Target("*.attn1.*", 5, 2.0),), seed=9)
    attached = [first.attach(unet, 0.7), second.attach(unet, -0.4)]
    beside = run(unet)
    for each in attached:
        each.detach()
    assert torch.equal(run(unet), before)
    merged = merge(unet, [(first, 0.7), (second, -0.4)])
    assert relative_error(run(unet), beside) < MERGED
    assert relative_error(run(unet), before) > 0.05
    merged.undo()
    assert bits(unet) == weights
    assert {name: tensor.data_ptr() for name, tensor in unet.state_dict().items()} == tensors


def test_several_attached_have_weights_of_their_own_that_may_change(unet: UNet) -> None:
    first, second = trained(unet, seed=1), trained(unet, seed=2)
    alone = first.attach(unet, 0.5)
    only_first = run(unet)
    other = second.attach(unet, 0.0)
    assert torch.equal(run(unet), only_first)
    other.weight = 0.9
    assert relative_error(run(unet), only_first) > 0.05
    alone.detach()
    alone = first.attach(unet, 0.5)
    other.detach()
    assert torch.equal(run(unet), only_first)
    alone.detach()


def test_later_merges_are_undone_first(unet: UNet) -> None:
    first = merge(unet, [(trained(unet), 1.0)])
    second = merge(unet, [(trained(unet, seed=2), 1.0)])
    with pytest.raises(ValueError, match="came later first"):
        first.undo()
    second.undo()
    first.undo()


def test_weight_0_is_the_base_bit_for_bit(unet: UNet) -> None:
    weights = bits(unet)
    assert not merge(unet, [(trained(unet), 0.0)]).before
    assert bits(unet) == weights


def test_a_twin_shares_what_is_not_changed_and_keeps_the_first_as_it_is(unet: UNet) -> None:
    weights, before = bits(unet), run(unet)
    second = twin(unet)
    adapters = trained(unet, (Target("*.attn1.*", 2),))
    merge(second, [(adapters, 1.0)])
    assert bits(unet) == weights
    assert torch.equal(run(unet), before)
    mine, theirs = dict(unet.named_parameters()), dict(second.named_parameters())
    other = {name for name in mine if mine[name] is not theirs[name]}
    assert other == {f"{path}.weight" for path in adapters.paths}
    assert relative_error(run(second), before) > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_weight_is_summed_in_float32_and_rounded_once(normal: Normal, dtype: torch.dtype) -> None:
    layer = nn.Conv2d(6, 8, 3).to(dtype).to(memory_format=torch.channels_last)
    down, up = normal(2, 6, 3, 3), normal(8, 2, 1, 1)
    exact = layer.weight.double() + torch.einsum("or,rihw->oihw", up.double()[:, :, 0, 0], down.double())
    merge(nn.Sequential(layer), [(Adapters({"0": Adapter(down, up)}), 1.0)])
    rounding = 0.501 * torch.finfo(dtype).eps * exact.abs() + 1e-6  # half a step, and float32's own sums
    assert (((layer.weight.double() - exact).abs()) <= rounding).all()
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_an_upsampler_that_skips_its_convolution_does_not_skip_the_adapter(normal: Normal) -> None:
    upsample, side = Upsample(4), 64  # from 64 x 64 cells on its own fast way is taken
    assert side * side >= Upsample.transposed_from
    adapters, x = Adapters({"conv": Adapter(normal(2, 4, 3, 3), normal(4, 2, 1, 1))}), normal(1, 4, side, side)
    attached = adapters.attach(upsample)
    with torch.no_grad():
        beside = upsample(x)
        attached.detach()
        before = upsample(x)
        merge(upsample, [(adapters, 1.0)])
        assert relative_error(upsample(x), beside) < MERGED
        assert relative_error(before, beside) > 0.1


def test_the_trainers_usual_targets_are_all_there() -> None:
    with torch.device("meta"):
        unet, encoder = UNet(blueprint(SD15).unet), TextEncoder(blueprint(SD15).text[0])
        xl = UNet(blueprint(SDXL).unet)
    count = {pattern: len(_fitting(unet, pattern)) for pattern in (TRANSFORMERS, ATTENTION)}
    assert count == {TRANSFORMERS: 192, ATTENTION: 128}  # kohya's; diffusers': 16 blocks of 8
    assert len(_fitting(encoder, TEXT)) == 72
    assert len(_fitting(xl, TRANSFORMERS)) == 722  # kohya's for SDXL


def _fitting(network: nn.Module, pattern: str) -> tuple[str, ...]:
    return tuple(path for path in adaptable(network) if fnmatchcase(path, pattern))


def test_the_first_target_that_fits_decides_and_wrong_ones_are_refused(unet: UNet) -> None:
    adapters = create(unet, EVERYWHERE)
    told = {path: (adapter.rank, adapter.alpha) for path, adapter in adapters.items()}
    assert told["mid_block.attentions.0.transformer_blocks.0.attn2.to_k"] == (2, 1.0)
    assert told["mid_block.attentions.0.transformer_blocks.0.attn2.to_q"] == (4, 6.0)
    assert told["down_blocks.0.resnets.0.conv1"] == (3, 3.0)
    assert told["up_blocks.0.upsamplers.0.conv"] == (2, 0.5)
    assert set(adapters.paths) == set(adaptable(unet))
    for targets in ((Target("*.attn3.*", 4),), (Target("*", 0),), (Target("*", 1, float("nan")),), ()):
        with pytest.raises(ConfigError):
            create(unet, targets)


def test_new_adapters_depend_on_the_seed_alone(unet: UNet) -> None:
    before = torch.get_rng_state()
    same = [create(unet, EVERYWHERE, seed=4).state_dict() for _ in range(2)]
    other = create(unet, EVERYWHERE, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    assert any(not torch.equal(same[0][name], other[name]) for name in same[0])


def test_adapters_of_another_network_are_refused(unet: UNet, normal: Normal) -> None:
    wrong = Adapters(
        {"conv_in": Adapter(normal(2, 4, 3, 3), normal(64, 2, 1, 1)), "nowhere": Adapter(normal(1, 2), normal(2, 1))}
    )
    for use in (lambda: wrong.attach(unet), lambda: merge(unet, [(wrong, 1.0)])):
        with pytest.raises(ConfigError, match="2 of 2 adapters fit no layer of this network, first 'conv_in'"):
            use()
    with pytest.raises(ValueError, match="no low-rank pair"):
        Adapter(normal(2, 3), normal(3, 3))
    with pytest.raises(ValueError, match="larger than 1x1"):
        Adapter(normal(2, 3, 3, 3), normal(3, 2, 3, 3))
