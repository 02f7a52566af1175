"""What a file is, told from its header."""

from dataclasses import replace
from pathlib import Path

import pytest
from weights_files import single_file_shapes, write_sparse

from sfumato.errors import ModelFileError, WeightsError
from sfumato.weights.describe import describe
from sfumato.weights.families import FAMILIES, blueprint
from sfumato.weights.kinds import kind_of
from sfumato.weights.load import load, open_model
from sfumato.weights.lora_file import open_lora
from sfumato.weights.recognise import recognise

UNET = "model.diffusion_model."
PARAMETERS = {  # of the UNet, as diffusers counts them
    "sd15": 859_520_964,
    "sd15-inpaint": 859_535_364,
    "sd15-instruct": 859_520_964 + 320 * 4 * 9,  # four channels more go into the first convolution
    "sd2": 865_910_724,
    "sd2-inpaint": 865_925_124,
    "sdxl": 2_567_463_684,
    "sdxl-inpaint": 2_567_478_084,
    "sdxl-instruct": 2_567_463_684 + 320 * 4 * 9,
    "sdxl-refiner": 2_259_526_660,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_full_size_single_file_is_recognised_from_its_header(tmp_path: Path, name: str) -> None:
    path = write_sparse(tmp_path / "model.safetensors", single_file_shapes(blueprint(FAMILIES[name])))
    found = describe(path)
    assert found.family == name
    assert found.problem is None
    assert found.notes == ()
    assert found.components["unet"].parameters == PARAMETERS[name]
    assert found.components["unet"].dtypes == ("F16",)
    assert found.inpainting == name.endswith("inpaint")
    assert found.prediction == (None if name.startswith("sd2") else "epsilon")
    assert "attends to" in found.reason


def test_sd2_is_not_loaded_before_its_prediction_is_known(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "model.safetensors", single_file_shapes(blueprint(FAMILIES["sd2"])))
    with pytest.raises(WeightsError, match=r'Say prediction="epsilon" or prediction="v"'):
        load(path)


SOURCES: dict[str, tuple[str, str, str]] = {  # file beside, its text, prediction
    "a scheduler's config named after it": ("model.scheduler_config.json", '{"prediction_type": "v_prediction"}', "v"),
    "a scheduler's config in the folder": ("scheduler_config.json", '{"prediction_type": "epsilon"}', "e"),
    "the original yaml of 768-v": ("model.yaml", 'model:\n  params:\n    parameterization: "v"\n', "v"),
    "the original yaml of 512-base": ("model.yaml", "model:\n  params:\n    linear_start: 0.00085\n", "e"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_sd2_takes_its_prediction_from_the_configuration_beside_it(tmp_path: Path, case: str) -> None:
    beside, text, expected = SOURCES[case]
    path = write_sparse(tmp_path / "model.safetensors", single_file_shapes(blueprint(FAMILIES["sd2"])))
    (tmp_path / beside).write_text(text)
    found = open_model(path).prediction
    assert found is not None
    assert found[0] == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
        ({"format": "pt"}, None),
    ],
)
def test_sd2_takes_its_prediction_from_its_metadata(
    tmp_path: Path, metadata: dict[str, str], expected: str | None
) -> None:
    shapes = single_file_shapes(blueprint(FAMILIES["sd2"]))
    assert open_model(write_sparse(tmp_path / "model.safetensors", shapes, metadata=metadata)).prediction == expected


def test_what_is_asked_for_overrides_what_the_file_says(tmp_path: Path) -> None:
    shapes = single_file_shapes(blueprint(FAMILIES["sd2"]))
    path = write_sparse(tmp_path / "model.safetensors", shapes, metadata={"modelspec.prediction_type": "epsilon"})
    assert open_model(path, prediction="v").prediction == "v_prediction"


def test_marker_tensors_of_velocity_and_zero_terminal_snr_are_read(tmp_path: Path) -> None:
    shapes = {**single_file_shapes(blueprint(FAMILIES["sdxl"])), "v_pred": (0,), "ztsnr": (0,)}
    opened = open_model(write_sparse(tmp_path / "model.safetensors", shapes))
    assert opened.prediction == "v_prediction"
    assert opened.scheduler["rescale_betas_zero_snr"] is True
    assert opened.scheduler["timestep_spacing"] == "trailing"
    assert any("v_pred" in note for note in opened.notes)


def without(name: str, *prefixes: str) -> dict[str, tuple[int, ...]]:
    """A family's single file, less what starts with these prefixes."""
    shapes = single_file_shapes(blueprint(FAMILIES[name]))
    return {key: shape for key, shape in shapes.items() if not key.startswith(prefixes)}


def renamed(name: str, prefix: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a family's single file behind a prefix, without it."""
    shapes = single_file_shapes(blueprint(FAMILIES[name]))
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def channels(name: str, count: int) -> dict[str, tuple[int, ...]]:
    """A family's single file with another number of input channels."""
    shapes = single_file_shapes(blueprint(FAMILIES[name]))
    key = UNET + "input_blocks.0.0.weight"
    return {**shapes, key: (shapes[key][0], count, 3, 3)}


CROSS = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "no autoencoder": (without("sd15", "first_stage_model."), "Stable Diffusion 1.x without its autoencoder"),
    "no text encoder": (without("sd2", "cond_stage_model."), "Stable Diffusion 2.x without its text encoder"),
    "one of two towers": (without("sdxl", "conditioner.embedders.1."), "XL without its text encoder"),
    "UNet only": (
        without("sdxl", "first_stage_model.", "conditioner."),
        "Stable Diffusion XL without its autoencoder and its text encoder",
    ),
    "VAE in the original names": (renamed("sd15", "first_stage_model."), "a VAE only"),
    "VAE of a single file": (without("sd15", UNET, "cond_stage_model."), "a VAE only"),
    "InstructPix2Pix of SD 2.x": (channels("sd2", 8), "with 8 input channels"),
    "depth": (channels("sd2", 5), "a depth-conditioned model"),
    "upscaler x4": (channels("sd2", 7), "an upscaling model"),
    "upscaler x4 as published": (
        {UNET + "input_blocks.0.0.weight": (256, 7, 3, 3), UNET + CROSS: (512, 1024)},
        "an upscaling model",
    ),
    "Stable Video Diffusion": ({**channels("sd2", 8), UNET + "input_blocks.1.1.time_stack.0.ff.x": (1,)}, "Video"),
    "Zero123": ({**channels("sd15", 8), "cc_projection.weight": (768, 772)}, "Zero123"),
    "scaled 8 bits": ({**channels("sdxl", 4), UNET + "scaled_fp8": (2,)}, "8-bit numbers with scales of their own"),
    "without its beginning": (renamed("sd15", "model."), "have lost their beginning, 'model.'"),
    "odd channels": (channels("sd15", 6), "with 6 input channels"),
    "kohya LoRA": ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (8, 320, 1, 1)}, "a LoRA"),
    "diffusers LoRA": ({"unet.down_blocks.0.attentions.0.proj_in.lora.down.weight": (8, 320)}, "a LoRA"),
    "PEFT LoRA": ({"base_model.model.mid_block.attn1.to_q.lora_A.weight": (8, 320)}, "a LoRA"),
    "LoRA of Flux, kohya's": ({"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": (4, 8)}, "another network"),
    "LoRA of Flux, diffusers'": (
        {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 8)},
        "another network",
    ),
    "LoRA of SD 3": ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight": (8, 4)}, "another network"),
    "LoRA of a motion module": (
        {"down_blocks.0.motion_modules.0.attention_blocks.0.processor.to_q_lora.down.weight": (4, 8)},
        "another network",
    ),
    "LLLite": ({"lllite_unet_input_blocks_4_1_attn1_to_q.conditioning1.0.weight": (16, 3, 4, 4)}, "an LLLite"),
    "IP-Adapter FaceID": (
        {"ip_adapter.0.to_q_lora.down.weight": (128, 320), "image_proj.proj.0.weight": (1024, 512)},
        "an IP-Adapter",
    ),
    "TAESD": ({"1.weight": (64, 4, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)}, "a tiny autoencoder"),
    "GLIGEN": ({"position_net.null_position_feature": (64,)}, "a GLIGEN"),
    "LoKr": ({"lora_unet_mid_block_attn1_to_q.lokr_w1": (8, 8)}, "a LoRA"),
    "ControlNet": ({"control_model.input_hint_block.0.weight": (16, 3, 3, 3)}, "a ControlNet"),
    "diffusers ControlNet": ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, "a ControlNet"),
    "IP-Adapter": ({"image_proj.proj.weight": (3072, 1024)}, "an IP-Adapter"),
    "motion module": ({"down_blocks.0.motion_modules.0.norm.weight": (320,)}, "an AnimateDiff motion module"),
    "hypernetwork": ({"768.0.linear.0.weight": (8, 768), "320.1.linear.0.weight": (8, 320)}, "a hypernetwork"),
    "embedding": ({"emb_params": (4, 768)}, "a textual inversion embedding"),
    "nameless embedding": ({"<cat>": (1, 768)}, "a textual inversion embedding"),
    "SDXL embedding": ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "a textual inversion embedding"),
    "SD 3": ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536)}, "Stable Diffusion 3"),
    "Flux": ({"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, "Flux"),
    "ESRGAN": ({"model.0.weight": (64, 3, 3, 3)}, "an upscaler"),
    "language model": ({"model.layers.0.self_attn.q_proj.weight": (64, 64)}, "a language model"),
    "text encoder": ({"text_model.embeddings.token_embedding.weight": (49408, 768)}, "a CLIP text encoder only"),
    "whole CLIP": ({"vision_model.embeddings.class_embedding": (1024,)}, "a CLIP with its vision tower"),
    "nothing known": ({"a": (3, 4), "b": (5,)}, "nothing that sfumato knows"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_file_that_is_no_whole_model_is_called_by_its_name(tmp_path: Path, case: str) -> None:
    shapes, what = OTHERS[case]
    assert what in recognise(shapes).what
    path = write_sparse(tmp_path / "file.safetensors", shapes)
    with pytest.raises(WeightsError, match="looks like") as caught:
        load(path, prediction="epsilon")
    assert what in str(caught.value)
    described = describe(path)
    assert described.family is None
    assert what in described.what
    assert described.problem == str(caught.value)


def test_the_unet_of_a_diffusers_folder_is_called_so(tmp_path: Path) -> None:
    shapes = {
        "conv_in.weight": (320, 4, 3, 3),
        "down_blocks.0.resnets.0.norm1.weight": (320,),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    }
    with pytest.raises(WeightsError, match=r"the UNet of Stable Diffusion 1\.x alone, out of"):
        load(write_sparse(tmp_path / "file.safetensors", shapes))


def test_an_adapter_of_another_network_is_added_as_nothing_and_refused_by_its_name(tmp_path: Path) -> None:
    shapes = {f"transformer.single_transformer_blocks.0.attn.to_q.lora_{half}.weight": (8, 8) for half in "AB"}
    path = write_sparse(tmp_path / "flux.safetensors", shapes)
    for read in (kind_of, open_lora):
        with pytest.raises(
            (ModelFileError, WeightsError), match="an adapter for another network than Stable Diffusion"
        ):
            read(path)


@pytest.mark.parametrize("name", ["sd15", "sdxl-inpaint"])
def test_a_checkpoint_without_its_autoencoder_is_a_model_once_another_is_named(tmp_path: Path, name: str) -> None:
    path = write_sparse(tmp_path / "bare.safetensors", without(name, "first_stage_model."))
    vae = write_sparse(tmp_path / "vae.safetensors", renamed(name, "first_stage_model."))
    with pytest.raises(
        WeightsError, match=r"without its autoencoder .*\. Name an autoencoder for it, too: vae, or --vae"
    ):
        open_model(path)
    assert kind_of(path)[0] == "model"
    opened = open_model(path, vae=vae)
    assert opened.family.name == name
    assert opened.components["vae"].tensors.paths == (vae,)
    assert opened.components["unet"].tensors.paths == (path,)
    short = write_sparse(tmp_path / "short.safetensors", without(name, "first_stage_model.", UNET + "out."))
    with pytest.raises(WeightsError, match=r"tensors missing, first '"):
        open_model(short, vae=vae)


DISTILLED = {  # transformer_layers_per_block and its reverse, of segmind's unet/config.json
    "SSD-1B": ((1, (2, 2), (4, 4)), ((4, 4, 10), (2, 1, 1), 1)),
    "Vega": ((1, (1, 1), (2, 2)), ((2, 2, 2), (1, 1, 1), 1)),
}


@pytest.mark.parametrize("name", DISTILLED)
def test_a_distilled_sdxl_has_the_layers_that_its_names_say(tmp_path: Path, name: str) -> None:
    whole = blueprint(FAMILIES["sdxl"])
    down, up = DISTILLED[name]
    unet = replace(
        whole.unet,
        transformer_layers_per_block=down,
        reverse_transformer_layers_per_block=up,
        mid_block_type="UNetMidBlock2D",
    )
    path = write_sparse(tmp_path / "model.safetensors", single_file_shapes(replace(whole, unet=unet)))
    opened = open_model(path)
    assert opened.family.name == "sdxl"
    assert opened.unet.part.network.config == unet
    with pytest.raises(WeightsError, match=r"tensors? missing"):
        open_model(write_sparse(tmp_path / "short.safetensors", without("sdxl", UNET + "input_blocks.8.")))
