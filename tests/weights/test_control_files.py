"""ControlNets and T2I-Adapters in files and folders of every naming, and every wrong one refused by name."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.torch import save_file
from torch import Tensor
from weights_files import write_sparse

from sfumato.errors import ModelFileError, ModelNotFoundError, WeightsError
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet, ControlNetConfig
from sfumato.nn.controlnet_union import ControlNetUnion, ControlNetUnionConfig
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.weights.build import on_meta
from sfumato.weights.control_file import locate_control, open_control
from sfumato.weights.controlnet_file import cldm_naming
from sfumato.weights.controls import with_controls
from sfumato.weights.describe import describe
from sfumato.weights.families import SD1_UNET, SD2_UNET, SDXL_UNET
from sfumato.weights.known import known
from sfumato.weights.load import load
from sfumato.weights.naming import their_shapes, to_theirs
from sfumato.weights.t2i_file import original_naming

Pipelines = Callable[[str], tuple[Any, Path]]
# Parameters, counted in diffusers' own networks of the published configurations.
PUBLISHED = {"sd15": (SD1_UNET, 361_279_120), "sd2": (SD2_UNET, 364_228_240), "sdxl": (SDXL_UNET, 1_251_014_160)}
ADAPTERS = {
    "sd15": T2IAdapterConfig(),
    "sd15 grey": T2IAdapterConfig(in_channels=1),
    "sd15 light": T2IAdapterConfig(channels=(320, 640, 1280), num_res_blocks=4, adapter_type="light_adapter"),
    "sdxl": T2IAdapterConfig(downscale_factor=16, adapter_type="full_adapter_xl"),
}


@pytest.fixture(scope="module")
def sd1(pipelines: Pipelines) -> Model:
    return load(pipelines("sd1")[1])


@pytest.fixture(scope="module")
def network(sd1: Model) -> ControlNet:
    """A ControlNet for the tiny SD 1.x, with random weights."""
    made = ControlNet.of(sd1.unet, sd1.stride)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.normal_(generator=generator)
    return made


def read(model: Model, path: Path) -> dict[str, Tensor]:
    return with_controls(model, [str(path)]).controls[str(path)].state_dict()


def same(found: dict[str, Tensor], network: torch.nn.Module) -> bool:
    expected = network.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def cldm(network: ControlNet, prefix: str = "") -> dict[str, Tensor]:
    state = network.state_dict()
    theirs = to_theirs(cldm_naming(network.control, list(state)), state)
    return {prefix + name: tensor.contiguous() for name, tensor in theirs.items()}


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_published_controlnet_has_the_names_that_diffusers_converts(family: str) -> None:
    unet, count = PUBLISHED[family]
    config = ControlNetConfig(unet)
    ours = on_meta(lambda: ControlNet(config)).state_dict()
    naming = cldm_naming(config, list(ours))
    theirs = {rule.theirs: ours[rule.ours[0]] for rule in naming}
    converted = convert_controlnet_checkpoint(dict(theirs), config.to_json())
    added = {name for name in ours if name.startswith("add_embedding.")}  # which diffusers leaves out for SDXL
    assert converted.keys() == ours.keys() - added
    assert all(converted[name] is ours[name] for name in converted)
    assert {rule.theirs for rule in naming if rule.ours[0] in added} == {
        f"label_emb.0.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias") if added
    }
    with torch.device("meta"):
        reference = diffusers.ControlNetModel.from_config(config.to_json())
    assert {k: v.shape for k, v in reference.state_dict().items()} == {k: v.shape for k, v in ours.items()}
    assert sum(math.prod(each.shape) for each in ours.values()) == count
    known = {"zero_convs.0.0.weight", "input_hint_block.14.bias", "middle_block_out.0.weight", "time_embed.0.weight"}
    assert known | {f"zero_convs.{11 if family != 'sdxl' else 8}.0.bias"} <= theirs.keys()


@pytest.mark.parametrize("family", PUBLISHED)
@pytest.mark.parametrize("form", ["cldm", "cldm, prefixed", "diffusers"])
def test_a_published_controlnet_in_one_file_is_recognised(family: str, form: str, tmp_path: Path) -> None:
    config = ControlNetConfig(PUBLISHED[family][0])
    ours = on_meta(lambda: ControlNet(config)).state_dict()
    shapes = {name: tuple(each.shape) for name, each in ours.items()}
    if form != "diffusers":
        prefix = "control_model." if "prefixed" in form else ""
        shapes = {prefix + k: v for k, v in their_shapes(cldm_naming(config, list(ours)), ours).items()}
    path = write_sparse(tmp_path / "control_v11p_canny.safetensors", shapes)
    opened = open_control(path)
    assert (opened.kind, opened.family) == ("ControlNet", family)
    assert opened.component.part.network.control == config
    found = describe(path)
    assert found.what == opened.title
    assert found.control == "ControlNet"
    assert found.components["file"].parameters == PUBLISHED[family][1]


def test_a_published_union_in_one_file_is_recognised(tmp_path: Path) -> None:
    network = on_meta(lambda: ControlNetUnion(ControlNetUnionConfig(SDXL_UNET, num_control_type=8)))
    path = write_sparse(tmp_path / "promax.safetensors", {n: tuple(t.shape) for n, t in network.state_dict().items()})
    opened = open_control(path)
    assert (opened.title, opened.family) == ("a ControlNet for Stable Diffusion XL", "sdxl")
    found = opened.component.part.network
    assert isinstance(found, ControlNetUnion)
    assert found.control == network.control


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("form", ["original", "diffusers"])
def test_a_published_t2i_adapter_in_one_file_is_recognised(name: str, form: str, tmp_path: Path) -> None:
    config = ADAPTERS[name]
    ours = on_meta(lambda: T2IAdapter(config)).state_dict()
    naming = original_naming(config, list(ours))
    shapes = {rule.theirs: tuple(ours[rule.ours[0]].shape) for rule in naming}
    if form == "diffusers":
        shapes = {key: tuple(each.shape) for key, each in ours.items()}
    opened = open_control(write_sparse(tmp_path / "a.safetensors", shapes))
    assert (opened.kind, opened.family) == ("T2I-Adapter", name.split()[0])
    assert opened.component.part.network.config == config
    assert describe(tmp_path / "a.safetensors").what == opened.title


def test_a_t2i_adapters_original_names_are_those_of_its_code() -> None:
    """ldm/modules/encoders/adapter.py: resnets in one list, a level's first with its in_conv; light ones nested."""
    full = {rule.ours[0]: rule.theirs for rule in original_naming(ADAPTERS["sd15"], state_of("sd15"))}
    assert full["adapter.conv_in.weight"] == "conv_in.weight"
    assert full["adapter.body.0.resnets.1.block2.bias"] == "body.1.block2.bias"
    assert full["adapter.body.1.in_conv.weight"] == "body.2.in_conv.weight"
    assert full["adapter.body.3.resnets.1.block1.weight"] == "body.7.block1.weight"
    assert "adapter.body.3.in_conv.weight" not in full
    light = {rule.ours[0]: rule.theirs for rule in original_naming(ADAPTERS["sd15 light"], state_of("sd15 light"))}
    assert light["adapter.body.3.resnets.2.block2.weight"] == "body.3.body.2.block2.weight"
    assert light["adapter.body.2.out_conv.bias"] == "body.2.out_conv.bias"


def state_of(name: str) -> list[str]:
    return list(on_meta(lambda: T2IAdapter(ADAPTERS[name])).state_dict())


def test_a_controlnet_reads_the_same_from_every_form(sd1: Model, network: ControlNet, tmp_path: Path) -> None:
    theirs = diffusers.ControlNetModel.from_config(network.control.to_json())
    theirs.load_state_dict(network.state_dict())
    theirs.save_pretrained(tmp_path / "folder")
    theirs.save_pretrained(tmp_path / "variant", variant="fp16")
    save_file(cldm(network), tmp_path / "original.safetensors")
    save_file(cldm(network, "control_model."), tmp_path / "prefixed.safetensors")
    whole = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3), "other.weight": torch.zeros(1)}
    save_file({**cldm(network, "control_model."), **whole}, tmp_path / "whole.safetensors")
    save_file(network.state_dict(), tmp_path / "ours.safetensors")
    for name in ("folder", "variant", "original.safetensors", "prefixed.safetensors", "whole.safetensors"):
        assert same(read(sd1, tmp_path / name), network), name
    assert same(read(sd1, tmp_path / "ours.safetensors"), network)


def test_half_precision_is_read_in_the_models(sd1: Model, network: ControlNet, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in cldm(network).items()}
    save_file(halves, tmp_path / "half.safetensors")
    found = read(sd1, tmp_path / "half.safetensors")
    assert all(tensor.dtype is torch.float32 for tensor in found.values())
    assert all(torch.equal(found[name], weight.half().float()) for name, weight in network.state_dict().items())


def test_a_shuffle_model_averages_what_it_adds(sd1: Model, network: ControlNet, tmp_path: Path) -> None:
    for name in ("control_v11e_sd15_shuffle.safetensors", "control_v11p_sd15_canny.safetensors"):
        save_file(cldm(network), tmp_path / name)
        opened = open_control(tmp_path / name, sd1.unet.config)
        assert opened.component.part.network.control.global_pool_conditions is ("shuffle" in name)


def test_a_controlnet_of_another_family_is_told_before_it_is_read(sd1: Model, tmp_path: Path) -> None:
    config = ControlNetConfig(SDXL_UNET)
    ours = on_meta(lambda: ControlNet(config)).state_dict()
    path = write_sparse(tmp_path / "xl.safetensors", {name: tuple(each.shape) for name, each in ours.items()})
    with pytest.raises(WeightsError, match=r"does not fit .*looks like a ControlNet for Stable Diffusion XL"):
        with_controls(sd1, [str(path)])
    adapter = T2IAdapter(T2IAdapterConfig(channels=(16, 16)))
    save_file(adapter.state_dict(), tmp_path / "adapter.safetensors")
    with pytest.raises(WeightsError, match="makes maps of"):
        with_controls(sd1, [str(tmp_path / "adapter.safetensors")])
    with pytest.raises(WeightsError, match="for no published family"):
        open_control(small_file(sd1, tmp_path))


def small_file(sd1: Model, tmp_path: Path) -> Path:
    save_file(ControlNet.of(sd1.unet, sd1.stride).state_dict(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_half_a_controlnet_and_other_files_are_refused(sd1: Model, network: ControlNet, tmp_path: Path) -> None:
    tensors = cldm(network)
    del tensors["zero_convs.1.0.weight"]
    save_file({**tensors, "extra.weight": torch.zeros(1)}, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensor missing, first 'zero_convs.1.0.weight'; 1 tensor too many"):
        with_controls(sd1, [str(tmp_path / "half.safetensors")])
    save_file({"a.lora_A.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError, match=r"no control network: it looks like a LoRA"):
        with_controls(sd1, [str(tmp_path / "lora.safetensors")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match=r"no config\.json"):
        with_controls(sd1, [str(tmp_path / "empty")])


def test_a_name_that_is_not_there_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "control_canny.safetensors").touch()
    with pytest.raises(ModelNotFoundError, match=r"Did you mean '.*control_canny\.safetensors'"):
        locate_control(str(tmp_path / "control_cany.safetensors"))


def test_control_networks_in_the_cache_are_listed_and_opened(
    sd1: Model, network: ControlNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--canny" / "snapshots" / ("0" * 40)
    theirs = diffusers.ControlNetModel.from_config(network.control.to_json())
    theirs.load_state_dict(network.state_dict())
    theirs.save_pretrained(snapshot)
    (tmp_path / "models--some--canny" / "refs").mkdir()
    (tmp_path / "models--some--canny" / "refs" / "main").write_text("0" * 40)
    (found,) = [each for each in known("controlnet") if each.kind == "cache"]
    assert (found.name, found.what) == (f"some/canny@{'0' * 12}", "controlnet")
    for name in (found.name, "some/canny"):
        assert same(with_controls(sd1, [name]).controls[name].state_dict(), network)


def test_a_pickled_controlnet_is_the_same(sd1: Model, network: ControlNet, tmp_path: Path) -> None:
    torch.save({"state_dict": cldm(network, "control_model.")}, tmp_path / "control_sd15_canny.pth")
    assert same(read(sd1, tmp_path / "control_sd15_canny.pth"), network)
