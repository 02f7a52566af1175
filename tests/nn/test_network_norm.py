"""Group norm's own ways, forwards and backwards, against PyTorch's."""

import pytest
import torch
from nn_reference import relative_error
from torch import nn

from sfumato.nn.norm import GroupNorm, by_channels


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
def test_bfloat16_gradients_are_those_of_pytorch_in_float32(memory, normal):
    """Within what bfloat16 can hold: its 8 bits round each operand by up to 2^-9 = 0.2 %."""
    ours, theirs = GroupNorm(4, 24), nn.GroupNorm(4, 24)
    with torch.no_grad():
        ours.weight.copy_(normal(24))
        ours.bias.copy_(normal(24))
    theirs.load_state_dict(ours.state_dict())
    x = (2 + 3 * normal(3, 24, 10, 6)).bfloat16().to(memory_format=memory).requires_grad_()
    wanted = x.detach().float().requires_grad_()
    pull = normal(3, 24, 10, 6).bfloat16()
    ours(x).backward(pull)
    theirs(wanted).backward(pull.float())
    assert x.grad is not None
    assert relative_error(x.grad, wanted.grad) <= 0.01
    assert relative_error(ours.weight.grad, theirs.weight.grad) <= 0.005
    assert relative_error(ours.bias.grad, theirs.bias.grad) <= 0.005


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
@pytest.mark.parametrize("mean", [0.0, 20.0], ids=["centred", "far from zero"])
def test_values_in_bfloat16_are_those_of_float32(mean, memory, normal):
    """Each value is rounded by up to 2^-9, 0.2 %, wherever the mean of the group lies."""
    ours, theirs = GroupNorm(4, 24), nn.GroupNorm(4, 24)
    x = (mean + normal(3, 24, 32, 32)).bfloat16().to(memory_format=memory)
    expected = theirs(x.float())
    assert relative_error(ours(x), expected) <= 0.004
    with torch.no_grad():
        assert relative_error(ours(x), expected) <= 0.004


def test_values_in_float32_are_those_of_pytorch(normal):
    ours, theirs = GroupNorm(4, 24), nn.GroupNorm(4, 24)
    x = normal(3, 24, 10, 6)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("mean", [0.0, 20.0], ids=["centred", "far from zero"])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 0.004)])
def test_sums_over_channels_give_the_group_norm(mean, dtype, rounding, normal):
    """In float32 the square of a mean of 20 leaves the variance 1 with 24 - 9 bits, 3e-5."""
    theirs = nn.GroupNorm(4, 24, eps=1e-6)
    with torch.no_grad():
        theirs.weight.copy_(normal(24))
        theirs.bias.copy_(normal(24))
        x = (mean + normal(3, 24, 32, 20)).to(dtype)
        expected = theirs.double()(x.double())
        weights = theirs.weight.to(dtype), theirs.bias.to(dtype)
        found = by_channels(x, 4, *weights, 1e-6)
        alone = by_channels(x[:1].contiguous(memory_format=torch.channels_last), 4, *weights, 1e-6)
    assert found.dtype == alone.dtype == dtype
    limit = rounding if mean == 0 else max(rounding, 1e-4)
    assert relative_error(found, expected) <= limit
    assert relative_error(alone, expected[:1]) <= limit
