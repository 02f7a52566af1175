"""The terms of an autoencoder's loss that need another network: how pictures look, and a discriminator."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sfumato.errors import ConfigError
from sfumato.train.adversary import Discriminator, adaptive_weight, hinge, judge
from sfumato.train.perceptual import LPIPS, SLICES, perceptual, unit


def lpips_file(path: Path) -> dict[str, torch.Tensor]:
    """Random weights under the names of the lpips package."""
    torch.manual_seed(0)
    names = [[0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]]  # places of VGG-16's convolutions
    state = {}
    for at, (widths, numbers) in enumerate(zip(SLICES, names, strict=True)):
        for number, before, width in zip(numbers, widths[:-1], widths[1:], strict=True):
            state[f"net.slice{at + 1}.{number}.weight"] = torch.randn(width, before, 3, 3) / (3 * before**0.5)
            state[f"net.slice{at + 1}.{number}.bias"] = torch.randn(width) * 0.1
        state[f"lin{at}.model.1.weight"] = torch.rand(1, widths[-1], 1, 1)
    save_file(state, path)
    return state


def test_lpips_follows_its_definition(tmp_path: Path) -> None:
    state = lpips_file(tmp_path / "lpips.safetensors")
    network = perceptual(str(tmp_path / "lpips.safetensors"))
    assert isinstance(network, LPIPS)
    one, other = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    assert torch.equal(network(one, one), torch.zeros(2))
    # Zhang et al. 2018, equation 1, on the first slice alone
    with torch.no_grad():
        for lin in network.lins[1:]:
            lin.zero_()
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    maps = []
    for pixels in (one, other):
        x = (pixels - shift[:, None, None]) / scale[:, None, None]
        for number in (0, 2):
            weight, bias = (state[f"net.slice1.{number}.{kind}"] for kind in ("weight", "bias"))
            x = torch.relu(nn.functional.conv2d(x, weight, bias, padding=1))
        maps.append(x / x.norm(dim=1, keepdim=True))
    expected = (state["lin0.model.1.weight"] * (maps[0] - maps[1]) ** 2).sum(1).mean((1, 2))
    torch.testing.assert_close(network(one, other), expected, rtol=1e-5, atol=1e-6)


def test_what_is_no_lpips_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ConfigError, match=r"does not hold LPIPS on VGG-16: 31 tensors are missing, first 'lin0"):
        perceptual(str(path))
    with pytest.raises(ConfigError, match=r"loss\.features is 'reader' or a file"):
        perceptual("vgg")


def test_the_reader_sees_a_change_of_colour_and_gives_gradients() -> None:
    distance = perceptual("reader")
    one = torch.rand(2, 3, 64, 64) * 2 - 1
    other = one.clone()
    other[:, 0] *= 0.3
    other.requires_grad_(True)
    assert torch.equal(distance(one, one), torch.zeros(2))
    found = distance(other, one)
    assert found.shape == (2,)
    assert bool((found > 0).all())
    found.sum().backward()
    assert other.grad is not None
    assert float(other.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in distance.parameters())


def test_unit_features_have_length_one() -> None:
    assert torch.allclose(unit(torch.randn(2, 5, 3, 3)).norm(dim=1), torch.ones(2, 3, 3))


def test_the_hinge_asks_for_a_margin_of_one_and_no_more() -> None:
    assert float(hinge(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -3.0]))) == 0
    assert float(hinge(torch.tensor([0.0]), torch.tensor([0.5]))) == 0.5 * (1 + 1.5)


def test_each_of_the_two_is_taught_by_its_own_loss_alone() -> None:
    discriminator = Discriminator()
    generator = nn.Conv2d(3, 3, 1)
    real, drawn = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    made = generator(drawn)
    (-judge(discriminator, made).mean()).backward()
    assert generator.weight.grad is not None
    assert all(p.grad is None for p in discriminator.parameters())
    before = generator.weight.grad.clone()
    hinge(discriminator(real), discriminator(made.detach())).backward()
    assert torch.equal(generator.weight.grad, before)
    assert all(p.grad is not None for p in discriminator.parameters())


def test_what_the_discriminator_says_of_a_picture_does_not_depend_on_the_others() -> None:
    discriminator = Discriminator().eval()
    pictures = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(discriminator(pictures)[1:2], discriminator(pictures[1:2]), rtol=1e-5, atol=1e-5)


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_on_the_last_layer() -> None:
    last = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight = adaptive_weight((last * torch.tensor([6.0, 8.0])).sum(), (last * torch.tensor([0.0, 2.0])).sum(), last)
    assert float(weight) == pytest.approx(10 / (2 + 1e-4))
    most = adaptive_weight((last * 1e9).sum(), (last * 0).sum(), last)
    assert float(most) == 1e4
