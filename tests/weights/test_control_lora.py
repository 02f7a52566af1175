"""Control-LoRAs: a ControlNet out of the UNet's own weights and a small file, as Stability AI published them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from weights_files import write_sparse

from sfumato.errors import WeightsError
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet, ControlNetConfig
from sfumato.nn.lora import Target, create, merge, twin
from sfumato.nn.widened import widened
from sfumato.weights.build import on_meta
from sfumato.weights.control_file import open_control
from sfumato.weights.controlnet_file import cldm_naming
from sfumato.weights.controls import is_made_of_unet, with_controls
from sfumato.weights.describe import describe
from sfumato.weights.families import SDXL_UNET
from sfumato.weights.load import load
from sfumato.weights.naming import their_shapes, to_theirs

Pipelines = Callable[[str], tuple[Any, Path]]
RANK = 2
NEW = ("input_hint_block", "zero_convs", "middle_block_out")


@pytest.fixture(scope="module")
def sd1(pipelines: Pipelines) -> Model:
    return load(pipelines("sd1")[1])


def low_rank(model: Model, *, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file, and the whole ControlNet's tensors that it stands for, under our names.

    Of what the UNet has, weights of layers are changed, biases are there whole, norms are not there at all.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.1

    network = ControlNet.of(model.unet, model.stride)
    state = network.state_dict()
    theirs = {rule.ours[0]: rule.theirs for rule in cldm_naming(network.control, list(state))}
    file: dict[str, Tensor] = {"lora_controlnet": torch.zeros(1)}
    whole: dict[str, Tensor] = {}
    for ours, tensor in state.items():
        name = theirs[ours]
        if name.startswith(NEW) or (name.endswith(".bias") and "in_layers.0" not in name):
            whole[ours] = file[name] = random(*tensor.shape)
        elif tensor.ndim > 1:
            stem = name.removesuffix(".weight")
            up = random(tensor.shape[0], RANK, *(1 for _ in tensor.shape[2:]))
            down = random(RANK, *tensor.shape[1:])
            file |= {f"{stem}.up": up, f"{stem}.down": down}
            whole[ours] = tensor + (up.flatten(1) @ down.flatten(1)).view(tensor.shape)
        else:
            whole[ours] = tensor
    return file, whole


def test_it_is_the_controlnet_that_its_products_make_of_the_unet(sd1: Model, tmp_path: Path) -> None:
    file, whole = low_rank(sd1)
    path = tmp_path / "canny.safetensors"
    save_file(file, path)
    found = with_controls(sd1, [str(path)]).controls[str(path)]
    assert isinstance(found, ControlNet)
    state = found.state_dict()
    assert state.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.allclose(state[name], tensor, atol=1e-6), name
    other = ControlNet(found.control)
    other.load_state_dict(whole)
    side = 8 * sd1.stride
    picture, x, context = torch.rand(1, 3, side, side), torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32)
    with torch.no_grad():
        ours, theirs = (each(x, torch.tensor([7.0]), context, each.see(picture)) for each in (found, other))
    assert torch.allclose(ours.middle, theirs.middle, rtol=1e-5, atol=1e-6)
    assert is_made_of_unet(str(path))
    own = {each.data_ptr() for each in sd1.unet.parameters()}
    assert sum(each.data_ptr() in own for each in found.parameters()) > 10


def test_it_goes_with_the_loras_that_are_in_the_unet(sd1: Model, tmp_path: Path) -> None:
    file, whole = low_rank(sd1)
    save_file(file, tmp_path / "canny.safetensors")
    name = str(tmp_path / "canny.safetensors")
    second = twin(sd1.unet)
    adapters = create(second, [Target("*.attn1.to_q", 2)])
    for _, adapter in adapters.items():
        torch.nn.init.normal_(adapter.up)
    merge(second, [(adapters, 1.0)])
    changed = with_controls(replace(sd1, unet=second), [name]).controls[name].state_dict()
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    difference = second.state_dict()[layer] - sd1.unet.state_dict()[layer]
    assert torch.allclose(changed[layer], whole[layer] + difference, atol=1e-5)


def test_one_beside_a_unet_that_sees_a_mask_sees_the_latent_alone(sd1: Model, tmp_path: Path) -> None:
    file, whole = low_rank(sd1)
    model = replace(sd1, unet=widened(sd1.unet))
    save_file(file, tmp_path / "canny.safetensors")
    name = str(tmp_path / "canny.safetensors")
    found = with_controls(model, [name]).controls[name].state_dict()
    assert torch.allclose(found["conv_in.weight"], whole["conv_in.weight"], atol=1e-6)
    assert found["conv_in.weight"].shape[1] == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"zero_convs.1.0.weight": None}, r"1 of its tensors missing, first 'zero_convs\.1\.0\.weight'"),
        ({"zero_convs.1.0.weight": torch.zeros(3)}, r"of another shape, first 'zero_convs\.1\.0\.weight'"),
        ({"time_embed.0.up": torch.zeros(7, RANK)}, r"of another shape, first 'time_embed\.0\.weight'"),
        ({"time_embed.0.up": None}, r"too many, first 'time_embed\.0\.down'"),
        ({"more.weight": torch.zeros(1)}, r"too many, first 'more\.weight'"),
        ({"zero_convs.1.0.bias": torch.zeros(32, dtype=torch.int64)}, "no numbers"),
    ],
)
def test_half_of_one_or_another_ones_is_refused(
    change: dict[str, Tensor | None], says: str, sd1: Model, tmp_path: Path
) -> None:
    file, _ = low_rank(sd1)
    kept = {name: tensor for name, tensor in {**file, **change}.items() if tensor is not None}
    save_file(kept, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match=says):
        with_controls(sd1, [str(tmp_path / "half.safetensors")])


def test_a_published_one_is_recognised_without_its_model(tmp_path: Path) -> None:
    network = on_meta(lambda: ControlNet(ControlNetConfig(SDXL_UNET)))
    state = network.state_dict()
    shapes = their_shapes(cldm_naming(network.control, list(state)), state)
    found: dict[str, tuple[int, ...]] = {"lora_controlnet": (0,)}
    for name, shape in shapes.items():
        if len(shape) == 1 or name.startswith(NEW):
            found[name] = shape
        else:
            stem = name.removesuffix(".weight")
            found |= {f"{stem}.up": (shape[0], 128, *(1 for _ in shape[2:])), f"{stem}.down": (128, *shape[1:])}
    path = write_sparse(tmp_path / "control-lora-canny-rank128.safetensors", found)
    opened = open_control(path)
    assert (opened.title, opened.family) == ("a Control-LoRA for Stable Diffusion XL", "sdxl")
    assert describe(path).control == "ControlNet"


def test_whole_weights_in_place_of_pairs_are_taken(sd1: Model, tmp_path: Path) -> None:
    network = ControlNet.of(sd1.unet, sd1.stride)
    state = network.state_dict()
    theirs = to_theirs(cldm_naming(network.control, list(state)), state)
    save_file(
        {**{k: v.contiguous() for k, v in theirs.items()}, "lora_controlnet": torch.zeros(1)},
        tmp_path / "a.safetensors",
    )
    found = with_controls(sd1, [str(tmp_path / "a.safetensors")]).controls[str(tmp_path / "a.safetensors")]
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in state.items())
