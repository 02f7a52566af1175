"""LoRAs written and read back in every dialect, and what other programs expect beside the tensors."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from weights_files import write_sparse
from weights_loras import assert_same, random_lora, write

from sfumato.errors import OutputError, WeightsError
from sfumato.model import Model
from sfumato.nn.lora import Adapter, Adapters
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta
from sfumato.weights.families import SDXL, blueprint
from sfumato.weights.load import load
from sfumato.weights.lora import read_for
from sfumato.weights.lora_file import open_lora
from sfumato.weights.lora_save import convert_lora, save_lora

DIALECTS = ("kohya", "diffusers", "peft")
Pipelines = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest, pipelines: Pipelines) -> Model:
    return load(pipelines(request.param)[1])


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as opened:
        return opened.metadata()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_written_is_read_back_bit_for_bit(
    model: Model, tmp_path: Path, dialect: str, dtype: torch.dtype
) -> None:
    made = random_lora(model, dtype=dtype)
    path = save_lora(tmp_path / "a.safetensors", made, dialect=dialect)
    assert open_lora(path).dialect == dialect
    assert_same(read_for(model, path), made)


def test_every_way_through_the_dialects_keeps_every_bit_and_alpha(model: Model, tmp_path: Path) -> None:
    made = random_lora(model)
    first = next(iter(made["unet"].items()))[1]
    first.alpha = 1 / 3  # which no float32 has
    path = save_lora(tmp_path / "0.safetensors", made, metadata={"ss_learning_rate": "0.0001"})
    for number, dialect in enumerate(("peft", "diffusers", "kohya", "diffusers", "peft", "kohya"), 1):
        path = convert_lora(path, tmp_path / f"{number}.safetensors", dialect)
        assert open_lora(path).dialect == dialect
        assert_same(read_for(model, path), made)
        assert metadata_of(path)["ss_learning_rate"] == "0.0001"
    assert path.read_bytes() == (tmp_path / "0.safetensors").read_bytes()


def test_old_processors_become_every_dialect(tmp_path: Path) -> None:
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora"
    down, up = torch.randn(2, 8), torch.randn(8, 2)
    path = write(tmp_path / "old.safetensors", {f"{name}.down.weight": down, f"{name}.up.weight": up})
    for dialect in DIALECTS:
        converted = open_lora(convert_lora(path, tmp_path / f"{dialect}.safetensors", dialect)).read("unet")
        assert torch.equal(converted["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"].down, down)


def test_kohyas_file_has_what_its_readers_expect(model: Model, tmp_path: Path) -> None:
    path = save_lora(tmp_path / "a.safetensors", random_lora(model), metadata={"ss_network_module": "mine"})
    tensors, metadata = load_file(path), metadata_of(path)
    modules = {name.partition(".")[0] for name in tensors}
    for module in modules:
        down, up = tensors[f"{module}.lora_down.weight"], tensors[f"{module}.lora_up.weight"]
        assert tensors[f"{module}.alpha"].shape == ()
        assert down.shape[0] == up.shape[1]
        assert up.shape[2:] == (1, 1) if down.ndim == 4 else up.ndim == 2
    towers = len(model.text.encoders)
    prefixes = {module.split("_")[1] for module in modules}
    assert prefixes == ({"unet", "te"} if towers == 1 else {"unet", "te1", "te2"})
    assert set(metadata) >= {"ss_v2", "ss_base_model_version", "ss_network_dim", "ss_network_alpha", "ss_network_args"}
    assert metadata["ss_network_module"] == "mine"
    assert isinstance(json.loads(metadata["ss_network_args"]), dict)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(whole[start:]).hexdigest()  # A1111's, of the tensors alone
    assert len(metadata["sshs_legacy_hash"]) == 8


def test_sdxl_is_written_with_the_names_of_its_trainer(tmp_path: Path) -> None:
    config = blueprint(SDXL).unet
    layers = dict(on_meta(lambda: UNet(config)).named_modules())
    paths = [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        "up_blocks.0.attentions.2.proj_in",
        "down_blocks.0.resnets.1.conv1",
    ]
    made = {}
    for path in paths:
        outputs, inputs, *kernel = layers[path].weight.shape
        made[path] = Adapter(torch.zeros(1, inputs, *kernel), torch.zeros(outputs, 1, *(1 for _ in kernel)))
    file = save_lora(tmp_path / "xl.safetensors", {"unet": Adapters(made)})
    assert {name.partition(".")[0] for name in load_file(file)} == {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k",
        "lora_unet_output_blocks_2_1_proj_in",
        "lora_unet_input_blocks_2_0_in_layers_2",
    }
    assert metadata_of(file)["ss_base_model_version"] == "sdxl_base_v1-0"
    assert set(open_lora(file).entries["unet"]) == set(paths)  # without a model: by its widths
    back = open_lora(convert_lora(file, tmp_path / "peft.safetensors", "peft"))
    assert set(back.entries["unet"]) == set(paths)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(model: Model, tmp_path: Path) -> None:
    made = random_lora(model)
    path = save_lora(tmp_path / "a.safetensors", made)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        save_lora(path, made)
    with pytest.raises(OutputError, match=r"written as \.safetensors"):
        save_lora(tmp_path / "a.pt", made)
    with pytest.raises(OutputError, match="'diffusers-old'"):
        save_lora(tmp_path / "b.safetensors", made, dialect="diffusers-old")
    next(iter(made["unet"].items()))[1].up.data[0] = 1e6
    with pytest.raises(OutputError, match=r"not finite in torch\.float16"):
        save_lora(tmp_path / "c.safetensors", made, dtype=torch.float16)
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before


def test_a_file_with_tensors_that_are_no_layers_is_not_converted(tmp_path: Path) -> None:
    shapes = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 8),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (8, 2),
        "lora_unet_other_blocks_0_proj.alpha": (),
    }
    path = write_sparse(tmp_path / "a.safetensors", shapes)
    with pytest.raises(WeightsError, match=r"first 'lora_unet_other_blocks_0_proj\.alpha'"):
        convert_lora(path, tmp_path / "b.safetensors", "peft")
