"""Upscalers against spandrel with the same random weights, in every naming, and tiles against the whole picture."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nn_reference import relative_error
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfumato.errors import ModelFileError, WeightsError
from sfumato.nn.upscaler import RRDBNet, SRVGGNet, Upscaler, upscale_tiled
from sfumato.upscaling import enlarge
from sfumato.weights.upscaler_file import load_upscaler

ORACLE = Path(__file__).parents[1] / "oracle" / "spandrel_upscalers.py"


def randomised(network: Upscaler, seed: int = 3) -> Upscaler:
    """Weights of such a size that every layer matters to what comes out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network.eval()


NETWORKS = {
    "x4": lambda: RRDBNet(features=16, blocks=2, growth=32, doublings=2),
    "x2folded": lambda: RRDBNet(features=16, blocks=1, growth=32, doublings=2, folded=2),
    "x1folded": lambda: RRDBNet(features=16, blocks=1, growth=32, doublings=2, folded=4),
    "compact4": lambda: SRVGGNet(features=16, convolutions=3, scale=4),
    "compact2": lambda: SRVGGNet(features=24, convolutions=2, scale=2),
}


def pixels(height: int = 16, width: int = 20) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def old_names(state: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """Real-ESRGAN's names as the first ESRGAN code's, for two doublings: written down from a published file."""
    outer = {
        "conv_first": "model.0",
        "conv_body": f"model.1.sub.{blocks}",
        "conv_up1": "model.3",
        "conv_up2": "model.6",
    }
    outer |= {"conv_hr": "model.8", "conv_last": "model.10"}
    found = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        inner = re.sub(r"body\.(\d+)\.rdb(\d)\.conv(\d)", r"model.1.sub.\1.RDB\2.conv\3.0", layer)
        found[f"{outer.get(layer, inner)}.{kind}"] = tensor
    return found


def bsrgan_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    outer = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    found = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        inner = re.sub(r"body\.(\d+)\.rdb(\d)\.conv(\d)", r"RRDB_trunk.\1.RDB\2.conv\3", layer)
        found[f"{outer.get(layer, inner)}.{kind}"] = tensor
    return found


def write(path: Path, state: dict[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def test_networks_equal_spandrels_in_every_naming(tmp_path: Path) -> None:
    networks = {name: randomised(make()) for name, make in NETWORKS.items()}
    files = [write(tmp_path / f"{name}.safetensors", dict(network.state_dict())) for name, network in networks.items()]
    state = dict(networks["x4"].state_dict())
    files += [write(tmp_path / "old.safetensors", old_names(state, 2))]
    files += [write(tmp_path / "bsrgan.safetensors", bsrgan_names(state))]
    save_file({"pixels": pixels()}, tmp_path / "in.safetensors")
    command = [sys.executable, str(ORACLE), str(tmp_path / "out.safetensors"), str(tmp_path / "in.safetensors")]
    subprocess.run([*command, *map(str, files)], check=True)
    theirs = load_file(tmp_path / "out.safetensors")
    for file in files:
        network = load_upscaler(file)
        with torch.no_grad():
            ours = network(pixels())
        assert network.scale == theirs[f"{file.stem} scale"]
        assert relative_error(ours, theirs[file.stem]) <= 1e-5, file.stem


@pytest.mark.parametrize("name", ["compact4", "compact2", "x2folded"])
def test_tiles_give_what_the_whole_picture_does_whatever_their_size(name: str) -> None:
    network = randomised(NETWORKS[name]())
    given = pixels(90, 70)
    with torch.no_grad():
        whole = network(given)
    assert network.reach <= 48
    for tile in (16, 30, 64):
        assert relative_error(upscale_tiled(network, given, tile=tile), whole) <= 1e-6


@pytest.mark.parametrize("name", list(NETWORKS))
def test_what_is_further_away_than_the_reach_does_not_matter(name: str) -> None:
    network = randomised(NETWORKS[name]()).double()
    side = 2 * network.reach + 8
    given = torch.rand(1, 3, 8, side, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    other = given.clone()
    other[..., network.reach + 4 :] = 0.5
    with torch.no_grad():
        first, second = (network(each)[..., : 4 * network.scale] for each in (given, other))
    assert torch.allclose(first, second, atol=1e-12)


def test_a_network_enlarges_to_any_size_and_of_any_number(tmp_path: Path) -> None:
    path = write(tmp_path / "compact.safetensors", dict(randomised(NETWORKS["compact2"]()).state_dict()))
    given = pixels(12, 12) * 2 - 1
    assert enlarge(given, (24, 24), str(path)).shape == (1, 3, 24, 24)
    assert enlarge(given, (50, 60), str(path)).shape == (1, 3, 50, 60)  # asked three times, then scaled down
    network = load_upscaler(path)
    with torch.no_grad():
        once = network(given / 2 + 0.5).clamp(0, 1) * 2 - 1
    assert torch.allclose(enlarge(given, (24, 24), str(path)), once, atol=1e-5)


def test_wrapped_and_averaged_weights_are_found(tmp_path: Path) -> None:
    state = dict(randomised(NETWORKS["compact2"]()).state_dict())
    other = dict(randomised(NETWORKS["compact2"](), seed=9).state_dict())
    both = {f"params.{name}": each for name, each in other.items()} | {
        f"params_ema.{n}": each for n, each in state.items()
    }
    loaded = load_upscaler(write(tmp_path / "wrapped.safetensors", both))
    assert all(torch.equal(loaded.state_dict()[name], each) for name, each in state.items())


def test_pickled_files_are_read_without_running_them(tmp_path: Path) -> None:
    state = randomised(NETWORKS["x4"]()).state_dict()
    torch.save({"params_ema": state}, tmp_path / "net.pth")
    loaded = load_upscaler(tmp_path / "net.pth")
    assert all(torch.equal(loaded.state_dict()[name], each) for name, each in state.items())


def test_what_is_no_upscaler_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no upscaler"):
        load_upscaler(write(tmp_path / "other.safetensors", {"a": torch.zeros(2)}))
    state = dict(randomised(NETWORKS["x4"]()).state_dict())
    state["body.0.rdb1.conv1x1.weight"] = torch.zeros(32, 16, 1, 1)  # ESRGAN+
    with pytest.raises(WeightsError, match="conv1x1"):
        load_upscaler(write(tmp_path / "plus.safetensors", state))
    del state["body.0.rdb1.conv1x1.weight"], state["conv_hr.bias"]
    with pytest.raises(WeightsError, match="1 tensors are missing"):
        load_upscaler(write(tmp_path / "less.safetensors", state))
    with pytest.raises(ModelFileError):
        load_upscaler(tmp_path / "nowhere.safetensors")
