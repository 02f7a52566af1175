"""Checkpoints of the published sizes, with random weights."""

import gc
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import save_file as write
from weights_files import single_file_shapes

from sfumato.weights.families import FAMILIES, SD1_AUTOENCODER, SD1_SCHEDULER, SD1_TEXT, SD1_UNET, blueprint
from sfumato.weights.files import open_file
from sfumato.weights.load import load
from sfumato.weights.save import save_folder, write_json

pytestmark = pytest.mark.slow


def random_file(name: str, path: Path) -> Path:
    """A single file of a family's size in float16, with small random weights."""
    noise = torch.Generator().manual_seed(0)
    shapes = single_file_shapes(blueprint(FAMILIES[name]))
    write({key: (torch.randn(shape, generator=noise) * 0.02).half() for key, shape in shapes.items()}, path)
    gc.collect()
    return path


def configs(folder: Path) -> Path:
    """The configurations of SD 1.5's folder, without weights."""
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0"})
    for name, stated in (("unet", SD1_UNET), ("vae", SD1_AUTOENCODER), ("text_encoder", SD1_TEXT)):
        write_json(folder / name / "config.json", stated.to_json())
    write_json(folder / "scheduler" / "scheduler_config.json", dict(SD1_SCHEDULER))
    return folder


@torch.no_grad()
def test_sd15_in_one_file_has_the_weights_that_diffusers_finds_in_it(tmp_path: Path) -> None:
    path, folder = random_file("sd15", tmp_path / "sd15.safetensors"), configs(tmp_path / "configs")
    model = load(path, dtype=torch.float16)
    assert model.family is FAMILIES["sd15"]
    pairs = (
        (diffusers.UNet2DConditionModel, "unet", model.unet),
        (diffusers.AutoencoderKL, "vae", model.autoencoder),
    )
    for made, name, ours in pairs:
        theirs = made.from_single_file(
            str(path), config=str(folder), subfolder=name, torch_dtype=torch.float16, local_files_only=True
        ).state_dict()
        state = ours.state_dict()
        assert theirs.keys() == state.keys()
        assert all(torch.equal(theirs[key], state[key]) for key in theirs)
        del theirs
        gc.collect()


@torch.no_grad()
def test_a_folder_of_sd2_made_from_one_file_is_read_by_diffusers(tmp_path: Path) -> None:
    path = random_file("sd2", tmp_path / "sd2.safetensors")
    model = load(path, dtype=torch.float16, prediction="v")
    folder = save_folder(model, tmp_path / "folder")
    read = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16, local_files_only=True)
    source = open_file(path)
    first = source["cond_stage_model.model.transformer.resblocks.5.attn.in_proj_weight"]
    theirs = read.text_encoder.state_dict()
    key = next(key for key in theirs if key.endswith("layers.5.self_attn.k_proj.weight"))
    assert torch.equal(theirs[key], first[1024:2048])
    assert torch.equal(read.unet.conv_in.weight, source["model.diffusion_model.input_blocks.0.0.weight"])
    assert read.scheduler.config.prediction_type == "v_prediction"
    ids = read.tokenizer("a horse!", padding="max_length", max_length=77).input_ids
    assert ids[:5] == [49406, 320, 4558, 0, 49407]  # "!" is this tokenizer's pad token, and read as such
