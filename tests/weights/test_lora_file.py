"""LoRA files of every dialect, read by hand-written names; and every wrong file, refused by name."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from weights_files import write_sparse
from weights_loras import MIXED, assert_same, random_lora, write

from sfumato.errors import ModelFileError, ModelNotFoundError, OutputError, WeightsError
from sfumato.model import Model
from sfumato.nn.lora import Adapters, Target, adaptable
from sfumato.request import Lora
from sfumato.weights.describe import describe
from sfumato.weights.load import load
from sfumato.weights.lora import networks_of, read_for, with_loras
from sfumato.weights.lora_file import open_lora
from sfumato.weights.lora_names import ldm_paths
from sfumato.weights.lora_save import save_lora

BLOCK = "up_blocks.1.attentions.0.transformer_blocks.0"
KOHYA_BLOCK = "lora_unet_" + BLOCK.replace(".", "_")
Pipelines = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="module")
def sd1(pipelines: Pipelines) -> Model:
    return load(pipelines("sd1")[1])


@pytest.fixture(scope="module")
def sdxl(pipelines: Pipelines) -> Model:
    return load(pipelines("sdxl")[1])


def pair(inputs: int, outputs: int, rank: int = 2, kernel: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(inputs * outputs)
    down = torch.randn(rank, inputs, *kernel, generator=generator)
    return down, torch.randn(outputs, rank, *(1 for _ in kernel), generator=generator)


def one_layer(model: Model, path: str = f"{BLOCK}.attn1.to_q", rank: int = 2) -> tuple[Tensor, Tensor]:
    outputs, inputs = adaptable(model.unet)[path].weight.shape
    return pair(inputs, outputs, rank)


def test_kohyas_missing_alpha_is_the_rank(sd1: Model, tmp_path: Path) -> None:
    down, up = one_layer(sd1, rank=3)
    names = {f"{KOHYA_BLOCK}_attn1_to_q.lora_down.weight": down, f"{KOHYA_BLOCK}_attn1_to_q.lora_up.weight": up}
    found = read_for(sd1, write(tmp_path / "a.safetensors", names))["unet"]
    assert found[f"{BLOCK}.attn1.to_q"].alpha == 3
    told = {**names, f"{KOHYA_BLOCK}_attn1_to_q.alpha": torch.tensor(0.75, dtype=torch.float16)}
    found = read_for(sd1, write(tmp_path / "b.safetensors", told))["unet"]
    assert found[f"{BLOCK}.attn1.to_q"].scale == 0.25


def test_old_processors_names_are_those_of_their_layers(sd1: Model, tmp_path: Path) -> None:
    layers = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
    tensors = {}
    for old, new in layers.items():
        down, up = one_layer(sd1, f"{BLOCK}.attn2.{new}")
        name = f"{BLOCK}.attn2.processor.{old}_lora"
        tensors |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
    path = write(tmp_path / "pytorch_lora_weights.safetensors", tensors)
    opened = open_lora(tmp_path)  # the folder that diffusers saved it into
    assert (opened.dialect, opened.path) == ("diffusers-old", path)
    found = read_for(sd1, path)["unet"]
    assert set(found.paths) == {f"{BLOCK}.attn2.{new}" for new in layers.values()}
    assert all(adapter.scale == 1 for _, adapter in found.items())
    assert torch.equal(found[f"{BLOCK}.attn2.to_out.0"].up, tensors[f"{BLOCK}.attn2.processor.to_out_lora.up.weight"])


def test_sdxl_with_latent_diffusions_names_is_the_same_lora(sdxl: Model, tmp_path: Path) -> None:
    adapters = random_lora(sdxl)["unet"]
    names = {path: name for name, path in ldm_paths(sdxl.unet.config, adaptable(sdxl.unet)).items()}
    tensors = {}
    for path, adapter in adapters.items():
        name = f"lora_unet_{names[path]}"
        tensors |= {f"{name}.lora_down.weight": adapter.down, f"{name}.lora_up.weight": adapter.up}
        tensors[f"{name}.alpha"] = torch.tensor(adapter.alpha)
    assert any("output_blocks" in name for name in tensors)
    assert_same(read_for(sdxl, write(tmp_path / "ldm.safetensors", tensors)), {"unet": adapters})


def peft_adapter(folder: Path, model: Model, config: Mapping[str, Any], layers: list[str]) -> Path:
    tensors = {}
    for layer in layers:
        down, up = one_layer(model, layer, rank=config.get("rank_pattern", {}).get(layer, config["r"]))
        tensors |= {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up}
    write(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_pefts_own_adapter_has_its_alphas_beside_it(sd1: Model, tmp_path: Path) -> None:
    layers = [f"{BLOCK}.attn{number}.to_{which}" for number in (1, 2) for which in "qk"]
    patterns = {f"{BLOCK}.attn1.to_q": 1, "attn1.to_k": 7.5, r".*attn2\.to_[qv]": 5}
    config = {"r": 2, "lora_alpha": 8, "rank_pattern": {f"{BLOCK}.attn1.to_q": 4}, "alpha_pattern": patterns}
    folder = peft_adapter(tmp_path / "adapter", sd1, config, layers)
    found = read_for(sd1, folder)["unet"]
    assert [found[layer].alpha for layer in layers] == [1, 7.5, 5, 8]
    assert [found[layer].rank for layer in layers] == [4, 2, 2, 2]
    peft_adapter(folder, sd1, {"r": 4, "lora_alpha": 8, "use_rslora": True}, layers)
    assert read_for(sd1, folder)["unet"][layers[0]].scale == pytest.approx(8 / math.sqrt(4), rel=1e-15)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelFileError, match=r"without adapter_config\.json beside it"):
        read_for(sd1, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coft": True}, "coft is True"),
        ({"lora_alpha": "8"}, "is '8'; it should be a number"),
        ({"alpha_pattern": [3]}, "should be an object"),
        ({"alpha_pattern": {"(a|a)*b": 3}}, "too intricate"),
        ({"alpha_pattern": {".*.*.*x": 3}}, "too intricate"),
        ({"alpha_pattern": {"a(": 3}}, "cannot be read"),
    ],
)
def test_a_configuration_of_pefts_that_cannot_be_honoured_is_refused(
    sd1: Model, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = peft_adapter(tmp_path / "a", sd1, {"r": 2, "lora_alpha": 8, **change}, [f"{BLOCK}.attn1.to_q"])
    with pytest.raises(ModelFileError, match=r"adapter_config\.json") as caught:
        read_for(sd1, folder)
    assert message in str(caught.value)


def test_a_pure_adapter_of_the_wide_tower_is_the_second_text_encoders(tmp_path: Path) -> None:
    layer = "text_model.encoder.layers.0.mlp.fc1"
    shapes = {
        f"base_model.model.{layer}.lora_A.weight": (2, 1280),
        f"base_model.model.{layer}.lora_B.weight": (5120, 2),
    }
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2}')
    opened = open_lora(write_sparse(tmp_path / "adapter_model.safetensors", shapes))
    assert set(opened.entries) == {"text_encoder_2"}


def test_a_lora_of_another_family_is_refused_with_both_names(sd1: Model, tmp_path: Path) -> None:
    context = adaptable(sd1.unet)[f"{BLOCK}.attn2.to_k"].weight.shape[0]
    down, up = pair(2048, context)  # SDXL's text features
    name = f"{KOHYA_BLOCK}_attn2_to_k"
    path = write(tmp_path / "xl.safetensors", {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})
    with pytest.raises(WeightsError) as caught:
        with_loras(sd1, [Lora(str(path))])
    told = str(caught.value)
    assert told.startswith(str(path))
    assert "looks made for Stable Diffusion XL (its UNet attends to 2048 text features)" in told
    assert f"1 of 1 adapters of its unet have another shape, first '{BLOCK}.attn2.to_k'" in told
    assert "Use a LoRA of the model's family" in told


def test_unmatched_tensors_are_counted_and_named_and_may_be_left_out(
    sd1: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = save_lora(tmp_path / "whole.safetensors", {"unet": random_lora(sd1)["unet"]})
    tensors = load_file(whole)
    down, up = pair(32, 32)
    second = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"
    more = {
        f"{second}.lora_down.weight": down,
        f"{second}.lora_up.weight": up,
        "lora_te_nonsense.alpha": torch.ones(()),
    }
    path = write(tmp_path / "more.safetensors", {**tensors, **more})
    with pytest.raises(
        WeightsError, match="3 of its tensors have no layer there, first 'lora_te2_text_model"
    ) as caught:
        read_for(sd1, path)
    assert str(path) in str(caught.value)
    with caplog.at_level(logging.WARNING):
        found = read_for(sd1, path, allow_unmatched=True)
    assert all(name in caplog.text for name in more)
    assert_same(found, read_for(sd1, whole))
    with pytest.raises(WeightsError, match="none of its tensors has a layer there"):
        read_for(sd1, write(tmp_path / "other.safetensors", more), allow_unmatched=True)


@pytest.mark.parametrize(
    ("suffix", "what"),
    [
        ("bm.weight", "a GLoRA with a core"),
    ],
)
def test_other_kinds_of_adapters_are_refused_even_where_unmatched_is_allowed(
    sd1: Model, tmp_path: Path, suffix: str, what: str
) -> None:
    down, up = one_layer(sd1)
    name = f"{KOHYA_BLOCK}_attn1_to_q"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.{suffix}": up}
    with pytest.raises(WeightsError, match="not supported") as caught:
        read_for(sd1, write(tmp_path / "a.safetensors", tensors), allow_unmatched=True)
    assert what in str(caught.value)


def broken(change: str, tensors: dict[str, Tensor], path: Path) -> Path:
    """The same LoRA, spoilt."""
    down, up = list(tensors)
    if change == "half":
        del tensors[up]
    elif change == "rank":
        tensors[up] = tensors[up][:, :1]
    elif change == "nan":
        tensors[up][1, 1] = float("nan")
    elif change == "whole":
        tensors[up] = tensors[up].to(torch.int32)
    elif change == "alpha":
        tensors[down.replace("lora_down.weight", "alpha")] = torch.ones(2)
    elif change == "infinite":
        tensors[down.replace("lora_down.weight", "alpha")] = torch.tensor(float("inf"))
    elif change == "shape":
        tensors[down] = tensors[down][:, :-1]
    write(path, tensors)
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    if change == "page":
        path.write_text("<!DOCTYPE html>")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("half", "1 of 1 adapters lack a half"),
        ("rank", "no pairs of down"),
        ("nan", "1 of 64 numbers"),
        ("whole", "of type F32 and I32"),
        ("alpha", "an alpha is one number"),
        ("infinite", "is inf"),
        ("shape", "another shape"),
        ("truncated", "truncated"),
        ("page", "an HTML page"),
    ],
)
def test_a_broken_file_is_one_error_that_names_it(sd1: Model, tmp_path: Path, change: str, message: str) -> None:
    name = f"{KOHYA_BLOCK}_attn1_to_q"
    down, up = one_layer(sd1)
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    path = broken(change, tensors, tmp_path / "broken.safetensors")
    with pytest.raises(ModelFileError) as caught:
        read_for(sd1, path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_what_is_no_lora_is_called_what_it_is(sd1: Model, pipelines: Pipelines, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not a LoRA: it looks like the UNet"):
        open_lora(pipelines("sd1")[1] / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelFileError, match="name the LoRA's file"):
        open_lora(pipelines("sd1")[1])
    with pytest.raises(ModelNotFoundError, match="the LoRA 'style' is not there"):
        with_loras(sd1, [Lora("style")])


def test_a_model_with_loras_leaves_the_first_as_it_is_and_names_their_files(sd1: Model, tmp_path: Path) -> None:
    path = save_lora(tmp_path / "a.safetensors", random_lora(sd1))
    before = {n: {k: v.clone() for k, v in net.state_dict().items()} for n, net in networks_of(sd1).items()}
    lora = Lora(str(path), 0.5, 0.0)
    changed = with_loras(sd1, [lora])
    for name, network in networks_of(sd1).items():
        assert all(torch.equal(before[name][key], value) for key, value in network.state_dict().items())
    assert changed.loras == (lora,)
    assert set(changed.hashes) == {*sd1.hashes, f"lora {path}"}
    one, other = networks_of(sd1)["text_encoder"], networks_of(changed)["text_encoder"]
    assert all(
        torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items()
    )  # its weight is 0
    assert not torch.equal(changed.unet.conv_in.weight, sd1.unet.conv_in.weight)
    assert load(sd1.source, loras=[lora]).loras == (lora,)
    assert with_loras(sd1, []) is sd1


def test_a_lora_is_described_from_its_headers(sd1: Model, tmp_path: Path) -> None:
    parts = {"unet": (Target("*.attn1.*", 2, 1.0), Target("*.attn2.*", 4)), "text_encoder": MIXED["text_encoder"]}
    path = save_lora(tmp_path / "a.safetensors", random_lora(sd1, parts), dialect="peft")
    found = describe(path)
    assert found.what == "a LoRA for a model of its own sizes"
    assert found.lora is not None
    assert (found.lora.dialect, found.lora.family, found.lora.unmatched) == ("peft", None, 0)
    attentions = sum(path.endswith("attn1.to_q") for path in adaptable(sd1.unet))
    assert {(g.rank, g.alpha): g.layers for g in found.lora.networks["unet"]} == {
        (2, 1.0): 4 * attentions,
        (4, 4.0): 4 * attentions,
    }
    assert {(g.rank, g.alpha) for g in found.lora.networks["text_encoder"]} == {(2, 1.0), (5, 2.5), (4, 4.0)}


@pytest.mark.parametrize(
    ("shapes", "metadata", "family"),
    [
        ({f"{KOHYA_BLOCK}_attn2_to_k.lora_down.weight": (4, 768)}, {}, "sd15"),
        ({f"{KOHYA_BLOCK}_attn2_to_k.lora_down.weight": (4, 1024)}, {}, "sd2"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_v.lora_down.weight": (4, 2048)}, {}, "sdxl"),
        ({"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1024)}, {}, "sd2"),
        ({"lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1280)}, {}, "sdxl"),
        ({f"{KOHYA_BLOCK}_attn1_to_q.lora_down.weight": (4, 320)}, {"ss_base_model_version": "sd_v2_v"}, "sd2"),
        ({f"{KOHYA_BLOCK}_attn1_to_q.lora_down.weight": (4, 320)}, {}, None),
    ],
)
def test_the_family_is_told_from_widths_and_metadata(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str], family: str | None
) -> None:
    whole = {**shapes, **{name.replace("_down", "_up"): (8, 4) for name in shapes}}
    assert describe(write_sparse(tmp_path / "a.safetensors", whole, "F16", metadata)).lora.family == family


def test_an_empty_adapter_set_is_no_file(tmp_path: Path) -> None:
    for networks in ({}, {"unet": Adapters({})}):
        with pytest.raises(OutputError, match="nothing to write"):
            save_lora(tmp_path / "a.safetensors", networks)
