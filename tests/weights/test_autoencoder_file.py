"""Another autoencoder in place of a model's own, in every form that people have it in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from weights_files import single_file_shapes, write_sparse
from weights_pipelines import autoencoder

from sfumato.errors import ModelFileError, WeightsError
from sfumato.weights import save
from sfumato.weights.autoencoder_file import open_autoencoder
from sfumato.weights.families import FAMILIES, SD1_AUTOENCODER, SDXL_AUTOENCODER, blueprint
from sfumato.weights.load import load

Pipelines = Callable[[str], tuple[Any, Path]]
FORMS = ("folder", "model folder", "diffusers file", "old folder", "old file", "ldm file", "ldm file with prefix")
PREFIX = "first_stage_model."
# What diffusers 0.17 renamed: https://github.com/huggingface/diffusers/pull/1697
OLD = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Another random autoencoder, saved by diffusers, and its folder."""
    torch.manual_seed(99)
    made, folder = autoencoder(), tmp_path_factory.mktemp("vae")
    made.save_pretrained(folder)
    return made, folder


def old_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with the attention's names of old."""

    def old(name: str) -> str:
        for new, before in OLD:
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        return name

    return {old(name): tensor for name, tensor in tensors.items()}


def in_form(form: str, pipelines: Pipelines, folder: Path, to: Path) -> Path:
    """The autoencoder of `folder` in one of the forms that it is found in."""
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    if form == "folder":
        return folder
    if form == "diffusers file":
        return folder / "diffusion_pytorch_model.safetensors"
    if form in ("old folder", "old file"):
        save_file(old_names(tensors), to / "diffusion_pytorch_model.safetensors")
        # sd-vae-ft-mse's config.json states no scaling factor
        stated = json.loads((folder / "config.json").read_text())
        (to / "config.json").write_text(json.dumps({k: v for k, v in stated.items() if k != "scaling_factor"}))
        return to if form == "old folder" else to / "diffusion_pytorch_model.safetensors"
    whole = load(pipelines("sd1")[1], vae=folder)
    if form == "model folder":
        return save.save_folder(whole, to / "model")
    single = load_file(save.save_file(whole, to / "whole.safetensors"))
    prefix = PREFIX if form == "ldm file with prefix" else ""
    only = {prefix + k.removeprefix(PREFIX): tensor for k, tensor in single.items() if k.startswith(PREFIX)}
    only[prefix + "loss.logvar"] = torch.zeros(())
    save_file(only, to / "vae.safetensors")
    return to / "vae.safetensors"


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_another_autoencoder_is_used_in_every_form_of_it(
    pipelines: Pipelines, other: tuple[Any, Path], tmp_path: Path, form: str
) -> None:
    reference, folder = other
    model = load(pipelines("sd1")[1], vae=in_form(form, pipelines, folder, tmp_path))
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        model.autoencoder.decode(latent), reference.decode(latent).sample, rtol=0, atol=1e-5
    )  # float32 sums in another order
    assert torch.equal(model.unet.conv_in.weight, pipelines("sd1")[0].unet.conv_in.weight)
    assert model.files["vae"] != model.files["unet"]


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_a_full_size_autoencoder_of_one_file_is_recognised(tmp_path: Path, prefix: str) -> None:
    shapes = single_file_shapes(blueprint(FAMILIES["sd15"]))
    only = {prefix + k.removeprefix(PREFIX): shape for k, shape in shapes.items() if k.startswith(PREFIX)}
    component = open_autoencoder(write_sparse(tmp_path / "vae.safetensors", only), SD1_AUTOENCODER)
    assert sum(tensor.numel() for tensor in component.part.network.parameters()) == 83_653_863  # as published


def test_an_autoencoder_of_another_latent_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SD1_AUTOENCODER.to_json()))
    with pytest.raises(WeightsError, match=r"its scaling factor is 0\.18215, the model's 0\.13025"):
        open_autoencoder(tmp_path, SDXL_AUTOENCODER)


def test_what_is_no_autoencoder_is_called_by_its_name(
    pipelines: Pipelines, other: tuple[Any, Path], tmp_path: Path
) -> None:
    folder = pipelines("sd1")[1]
    with pytest.raises(WeightsError, match="not an autoencoder: it looks like the UNet"):
        load(folder, vae=folder / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="not an autoencoder: it looks like a CLIP text encoder"):
        load(folder, vae=folder / "text_encoder" / "model.safetensors")
    with pytest.raises(ModelFileError, match="describes a UNet2DConditionModel"):
        load(folder, vae=folder / "unet")
    with pytest.raises(ModelFileError, match=r"has no config\.json"):
        load(folder, vae=tmp_path)
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_mid_block_conv.lora_down.weight": torch.ones(4, 4)}, lora)
    with pytest.raises(WeightsError, match="a LoRA"):
        load(folder, vae=lora)


def test_an_incomplete_autoencoder_is_refused(pipelines: Pipelines, other: tuple[Any, Path], tmp_path: Path) -> None:
    tensors = load_file(other[1] / "diffusion_pytorch_model.safetensors")
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, tmp_path / "vae.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensor missing, first 'decoder\.conv_out\.bias'"):
        load(pipelines("sd1")[1], vae=tmp_path / "vae.safetensors")
