"""Companions' files: what is written is what is read, what does not fit is refused, and where they go along."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from companions import parts, with_companion
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import Pair
from typer.testing import CliRunner

from sfumato.cli.app import app
from sfumato.errors import ModelFileError, OutputError, WeightsError
from sfumato.model import Model
from sfumato.nn.lora import Adapters, Target, create
from sfumato.nn.widened import widened
from sfumato.weights.assemble import assemble
from sfumato.weights.companion import inpainter
from sfumato.weights.companion_save import save_companion
from sfumato.weights.component_files import COMPANION_FILE
from sfumato.weights.describe import describe
from sfumato.weights.load import load
from sfumato.weights.merge import merge
from sfumato.weights.save import save_file as save_single
from sfumato.weights.save import save_folder
from sfumato.weights.verify import verify


@pytest.fixture(scope="module")
def folder(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as we write it, so that writing it again gives the same files, with a companion."""
    root = tmp_path_factory.mktemp("companion")
    return with_companion(save_folder(load(tiny.source), root / "plain"), root / "model")


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata()


def test_a_file_has_the_first_layer_whole_and_kohya_s_pairs(folder: Path, tiny: Model) -> None:
    tensors, metadata = read(folder / COMPANION_FILE)
    adapters, first = parts(tiny)
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert metadata["sfumato_kind"] == "inpainting companion"
    assert metadata["sfumato_base_unet"] == hashlib.sha256(unet.read_bytes()).hexdigest()
    assert metadata["sfumato_base_family"] == tiny.family.name
    assert torch.equal(tensors["conv_in.weight"].float(), first.weight)
    assert tensors["conv_in.weight"].shape == (32, 9, 3, 3)
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    pair = adapters["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    assert torch.equal(tensors[f"{name}.lora_down.weight"].float(), pair.down)
    assert torch.equal(tensors[f"{name}.lora_up.weight"].float(), pair.up)
    assert tensors[f"{name}.alpha"] == 4
    assert len(tensors) == 3 * len(adapters) + 2
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_every_family_reads_what_it_writes(pair: Callable[[str], Pair], tmp_path: Path, kind: str) -> None:
    model = pair(kind).ours
    path = save_companion(tmp_path / "other name.safetensors", *parts(model), model)
    found = inpainter(model, path)
    assert found.family.inpainting and found.unet.config.in_channels == 9
    assert found.hashes["inpainting"] == hashlib.sha256(path.read_bytes()).hexdigest()
    again = save_companion(tmp_path / "again.safetensors", *parts(model), model)
    assert again.read_bytes() == path.read_bytes()


def test_what_cannot_be_one_is_not_written(tiny: Model, tmp_path: Path) -> None:
    adapters, first = parts(tiny)
    path = tmp_path / "a.safetensors"
    for given, message in (
        ((adapters, tiny.unet.conv_in), r"the first layer is \[32, 4, 3, 3\]; \[32, 9, 3, 3\] sees a mask"),
        ((Adapters({}), first), "has low-rank changes"),
        ((create(widened(tiny.unet), [Target("conv_in", 2)]), first), "of other layers than the first"),
    ):
        with pytest.raises(OutputError, match=message):
            save_companion(path, *given, tiny)
    with torch.no_grad():
        first.bias[0] = 1e6
    with pytest.raises(OutputError, match=r"'conv_in\.bias' is not finite in torch\.float16"):
        save_companion(path, adapters, first, tiny)
    assert not list(tmp_path.iterdir())


LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def spoiled(tensors: dict[str, torch.Tensor], how: str) -> None:
    if how == "first layer":
        tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :8].contiguous()
    elif how == "missing":
        del tensors["conv_in.bias"]
    elif how == "numbers":
        tensors["conv_in.weight"][0, 0, 0, 0] = torch.nan
    elif how == "pair":
        tensors[f"{LAYER}.lora_up.weight"] = torch.ones(3, 2).half()
    elif how == "half":
        del tensors[f"{LAYER}.lora_up.weight"]
    else:
        tensors["lora_unet_mid_block_nowhere.diff"] = torch.ones(2, 2).half()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("first layer", r"'conv_in.weight' is F16 \[32, 8, 3, 3\]; floating-point numbers \[32, 9, 3, 3\] are needed"),
        ("missing", "'conv_in.bias' is nothing"),
        ("numbers", "1 of 2,592 numbers of 'conv_in.weight' are not finite"),
        ("pair", "adapters of its unet have another shape"),
        ("half", "lack a half"),
        ("unknown", "1 of its tensors have no layer there, first 'lora_unet_mid_block_nowhere.diff'"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_error(folder: Path, tmp_path: Path, how: str, message: str) -> None:
    tensors, metadata = read(folder / COMPANION_FILE)
    spoiled(tensors, how)
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    with pytest.raises(ModelFileError, match=message):
        inpainter(load(folder), tmp_path / "a.safetensors")


def test_a_damaged_file_is_told_when_the_model_is_loaded_and_another_of_its_name_is_not_used(
    folder: Path, tmp_path: Path
) -> None:
    model = with_companion(folder.parent / "plain", tmp_path / "model")
    content = (model / COMPANION_FILE).read_bytes()
    (model / COMPANION_FILE).write_bytes(content[:-7])
    with pytest.raises(ModelFileError, match=str(model / COMPANION_FILE)):
        load(model)
    save_file({"a": torch.ones(2)}, model / COMPANION_FILE)
    found = load(model)
    assert found.companion is None
    assert found.notes == (f"{COMPANION_FILE} is no inpainting companion and is not used",)
    with pytest.raises(WeightsError, match="is no inpainting companion: its metadata have no sfumato_kind"):
        inpainter(found, model / COMPANION_FILE)


def test_show_and_verify_tell_of_it(folder: Path, tmp_path: Path) -> None:
    found = describe(folder)
    tensors, _ = read(folder / COMPANION_FILE)
    assert found.components["inpainting"].parameters == sum(tensor.numel() for tensor in tensors.values())
    assert found.components["inpainting"].files == (folder / COMPANION_FILE,)
    assert "inpainting: " in CliRunner().invoke(app, ["models", "show", str(folder)]).stdout
    alone = describe(folder / COMPANION_FILE)
    assert alone.what == "an inpainting companion" and alone.lora is None
    verified = verify(folder)
    assert verified.sha256["inpainting"] == hashlib.sha256((folder / COMPANION_FILE).read_bytes()).hexdigest()
    assert verified.tensors == verify(folder.parent / "plain").tensors + len(tensors)
    other = with_companion(folder.parent / "plain", tmp_path / "other")
    metadata = read(other / COMPANION_FILE)[1]
    save_file(
        tensors, other / COMPANION_FILE, metadata | {"sfumato_base_unet": "0" * 64, "sfumato_base_numbers": "0" * 64}
    )
    with pytest.raises(WeightsError, match="was trained beside another UNet"):
        verify(other)
    tensors["conv_in.bias"][0] = torch.inf
    save_file(tensors, other / COMPANION_FILE, metadata)
    with pytest.raises(ModelFileError, match=r"numbers of 'conv_in\.bias' are not finite"):
        verify(other)


def test_it_goes_along_where_the_unet_stays_and_is_left_out_with_a_note_elsewhere(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    content = (folder / COMPANION_FILE).read_bytes()
    same = save_folder(load(folder), tmp_path / "same")
    assert (same / COMPANION_FILE).read_bytes() == content
    assert load(same).inpainter is not None
    assert (
        merge(folder, folder.parent / "plain", tmp_path / "nothing", weight=0.0) / COMPANION_FILE
    ).read_bytes() == content
    assert not caplog.records
    wide = save_folder(load(folder), tmp_path / "wide", dtype=torch.float64)  # other files, the same numbers
    tensors, metadata = read(folder / COMPANION_FILE)
    others, restated = read(wide / COMPANION_FILE)
    assert all(torch.equal(tensors[name], others[name]) for name in tensors | others)
    unet = (wide / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert restated == metadata | {"sfumato_base_unet": hashlib.sha256(unet).hexdigest()}
    assert verify(wide).sha256.keys() >= {"inpainting"}
    (wide / COMPANION_FILE).write_bytes(content)
    assert load(wide).inpainter is not None  # by its numbers
    half = save_folder(load(folder), tmp_path / "half", dtype=torch.float16)
    with torch.no_grad():
        other = load(folder)
        other.unet.conv_out.bias.add_(1)
    for left in (half, save_folder(other, tmp_path / "other")):
        assert not (left / COMPANION_FILE).exists()
    save_single(load(folder), tmp_path / "one.safetensors")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3 and all(str(folder / COMPANION_FILE) in each and "left out" in each for each in messages)


def test_assembling_takes_one_that_was_trained_beside_the_model(folder: Path, tmp_path: Path) -> None:
    say: dict[str, Any] = {"title": "tiny", "size": 64, "steps": 2, "guidance": 2.0}
    plain = assemble([folder.parent / "plain"], tmp_path / "plain", **say)
    model = load(plain)
    path = save_companion(tmp_path / "trained.safetensors", *parts(model), model)
    arguments = ["models", "assemble", str(folder.parent / "plain"), "--companion", str(path), "--json"]
    arguments += ["--output", str(tmp_path / "whole"), "--title", "tiny", "--size", "64", "--steps", "2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    whole = Path(json.loads(done.stdout)["path"])
    assert (whole / COMPANION_FILE).read_bytes() == path.read_bytes()
    assert load(whole).inpainter is not None
    with pytest.raises(WeightsError, match="was trained beside another UNet"):
        assemble([folder.parent / "plain"], tmp_path / "wrong", companion=folder / COMPANION_FILE, **say)
    assert not (tmp_path / "wrong").exists()
