"""ControlNets that are stored as their difference to a UNet, and added to another one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sfumato.errors import ModelFileError, WeightsError
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.lora import Target, create, merge, twin
from sfumato.nn.widened import widened
from sfumato.weights.control_file import open_control
from sfumato.weights.controlnet_file import cldm_naming
from sfumato.weights.controls import is_made_of_unet, with_controls
from sfumato.weights.load import load
from sfumato.weights.naming import to_theirs

Pipelines = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="module")
def sd1(pipelines: Pipelines) -> Model:
    return load(pipelines("sd1")[1])


def trained(model: Model) -> dict[str, Tensor]:
    """The weights of a ControlNet that began as a copy of a UNet, under our names."""
    generator = torch.Generator().manual_seed(2)
    state = ControlNet.of(model.unet, model.stride).state_dict()
    return {name: each + 0.1 * torch.randn(each.shape, generator=generator) for name, each in state.items()}


def file_of(model: Model, whole: dict[str, Tensor], path: Path, *, prefix: str = "") -> Path:
    """Its difference to the UNet, as the published files have it: cldm's names, and what is new in it whole."""
    base = model.unet.state_dict()
    ours = {name: each - base[name] if name in base else each for name, each in whole.items()}
    network = ControlNet.of(model.unet, model.stride)
    theirs = to_theirs(cldm_naming(network.control, list(ours)), ours)
    named = {prefix + name: each.contiguous() for name, each in theirs.items()}
    save_file({**named, "difference": torch.zeros(1)}, path)
    return path


def read(model: Model, path: Path) -> dict[str, Tensor]:
    return with_controls(model, [str(path)]).controls[str(path)].state_dict()


@pytest.mark.parametrize("prefix", ["", "control_model."])
def test_beside_its_own_unet_it_is_the_controlnet(prefix: str, sd1: Model, tmp_path: Path) -> None:
    whole = trained(sd1)
    path = file_of(sd1, whole, tmp_path / "canny.safetensors", prefix=prefix)
    found = read(sd1, path)
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=1e-6), name
    assert is_made_of_unet(str(path))


def test_beside_another_unet_it_has_what_that_one_has_more(sd1: Model, tmp_path: Path) -> None:
    """A style that was trained into the UNet is in the ControlNet as well: what these files are for."""
    whole = trained(sd1)
    path = file_of(sd1, whole, tmp_path / "canny.safetensors")
    second = twin(sd1.unet)
    adapters = create(second, [Target("*.attn1.to_q", 2)])
    for _, adapter in adapters.items():
        torch.nn.init.normal_(adapter.up, generator=torch.Generator().manual_seed(3))
    merge(second, [(adapters, 1.0)])
    found, more, base = read(replace(sd1, unet=second), path), second.state_dict(), sd1.unet.state_dict()
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert not torch.allclose(more[layer], base[layer], atol=1e-3)
    for name, tensor in whole.items():
        expected = tensor + more[name] - base[name] if name in base else tensor
        assert torch.allclose(found[name], expected, rtol=0, atol=1e-5), name
    assert all(torch.equal(base[name], each) for name, each in sd1.unet.state_dict().items())


def test_beside_a_unet_that_sees_a_mask_it_sees_the_latent_alone(sd1: Model, tmp_path: Path) -> None:
    whole = trained(sd1)
    path = file_of(sd1, whole, tmp_path / "canny.safetensors")
    found = read(replace(sd1, unet=widened(sd1.unet)), path)["conv_in.weight"]
    assert torch.allclose(found, whole["conv_in.weight"], rtol=0, atol=1e-6)


def test_the_sums_are_made_before_they_are_rounded(sd1: Model, tmp_path: Path) -> None:
    whole = trained(sd1)
    path = file_of(sd1, whole, tmp_path / "canny.safetensors")
    half = load(sd1.source, dtype=torch.bfloat16)
    base = half.unet.state_dict()
    for name, found in read(half, path).items():
        own = sd1.unet.state_dict().get(name)
        expected = whole[name] if own is None else whole[name] - own + base[name].float()
        assert found.dtype is torch.bfloat16
        assert torch.allclose(found.float(), expected, rtol=2**-8, atol=1e-7), name  # rounded once


def test_what_it_is_is_told(sd1: Model, tmp_path: Path) -> None:
    path = file_of(sd1, trained(sd1), tmp_path / "canny.safetensors")
    assert open_control(path, sd1.unet.config).title.endswith(", as its difference to a UNet")


def test_half_of_one_and_one_that_is_not_finite_are_refused(sd1: Model, tmp_path: Path) -> None:
    whole = trained(sd1)
    bad = {**whole, "conv_in.bias": whole["conv_in.bias"] * torch.nan}
    path = file_of(sd1, bad, tmp_path / "bad.safetensors")
    with pytest.raises(ModelFileError, match="finite"):
        read(sd1, path)
    names = cldm_naming(ControlNet.of(sd1.unet, sd1.stride).control, list(whole))
    tensors = {rule.theirs: whole[rule.ours[0]] for rule in names if rule.theirs != "zero_convs.1.0.weight"}
    save_file({**tensors, "difference": torch.zeros(1), "more": torch.zeros(1)}, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensor missing, first 'zero_convs.1.0.weight'; 1 tensor too many"):
        read(sd1, tmp_path / "half.safetensors")
