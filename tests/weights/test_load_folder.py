"""Folders that diffusers saved, whole and broken."""

import contextlib
import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from weights_pipelines import KINDS

from sfumato.errors import ConfigError, ModelFileError, SfumatoError, WeightsError
from sfumato.model import Model
from sfumato.weights.load import load, open_model
from sfumato.weights.network_config import sampling_config

Pipelines = Callable[[str], tuple[Any, Path]]
EMBEDDED = Path(str(resources.files("sfumato").joinpath("embedded")))
SAME = {"rtol": 0.0, "atol": 1e-5}  # of values near 1: float32 sums in another order


def unet_outputs(model: Model, pipeline: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The same question to our UNet and to diffusers'."""
    noise = torch.Generator().manual_seed(7)
    config = model.unet.config
    x = torch.randn(2, config.in_channels, 8, 8, generator=noise)
    context = torch.randn(2, 5, config.cross_attention_dim, generator=noise)
    timestep = torch.tensor([3.0, 700.0])
    added: dict[str, torch.Tensor] = {}
    if config.addition_embed_type:
        ids = 5 if len(model.text.encoders) == 1 else 6
        added = {"text_embeds": torch.randn(2, 48, generator=noise), "time_ids": torch.full((2, ids), 64.0)}
    ours = model.unet(x, timestep, context, added.get("text_embeds"), added.get("time_ids"))
    theirs = pipeline.unet(x, timestep, context, added_cond_kwargs=added).sample
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_a_folder_saved_by_diffusers_answer_as_diffusers_does(pipelines: Pipelines, kind: str) -> None:
    pipeline, folder = pipelines(kind)
    model = load(folder)
    ours, theirs = unet_outputs(model, pipeline)
    torch.testing.assert_close(ours, theirs, **SAME)
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    posterior = pipeline.vae.encode(pixels).latent_dist
    torch.testing.assert_close(model.autoencoder.encode(pixels).mean, posterior.mean, **SAME)
    decoded = pipeline.vae.decode(posterior.mean).sample
    torch.testing.assert_close(model.autoencoder.decode(posterior.mean), decoded, **SAME)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_a_folder_saved_by_diffusers_is_encoded_as_diffusers_does(pipelines: Pipelines, kind: str) -> None:
    pipeline, folder = pipelines(kind)
    prompt = "a photograph of an astronaut riding a horse"
    found = load(folder).text.encode(prompt)
    if kind in ("sdxl", "refiner"):
        context, _, pooled, _ = pipeline.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
        assert found.pooled is not None
        torch.testing.assert_close(found.pooled, pooled, **SAME)
    else:
        context, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
        assert found.pooled is None
    torch.testing.assert_close(found.context, context, **SAME)


def test_what_the_scheduler_says_is_kept(pipelines: Pipelines) -> None:
    assert load(pipelines("sd2")[1]).prediction == "v_prediction"
    model = load(pipelines("sd1")[1])
    assert model.prediction == "epsilon"
    assert model.sampling.sampler == "plms"
    # the product of 1 - beta in float64, DDPM's definition, at the first and last timestep
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, 0)
    assert model.schedule.alphas_cumprod[0] == pytest.approx(float(expected[0]), rel=1e-12)
    assert model.schedule.alphas_cumprod[-1] == pytest.approx(float(expected[-1]), rel=1e-10)
    assert load(pipelines("sd1")[1], prediction="v").prediction == "v_prediction"


def test_an_unknown_prediction_is_refused_by_name(pipelines: Pipelines) -> None:
    with pytest.raises(ConfigError, match="'noise' is not known"):
        load(pipelines("sd1")[1], prediction="noise")


def test_families_of_custom_sizes_have_the_rules_of_their_kind(pipelines: Pipelines) -> None:
    for kind, text, inpainting in (
        ("sd1", "clip", False),
        ("sd1-inpaint", "clip", True),
        ("sd2", "openclip", False),
        ("sdxl", "sdxl", False),
        ("refiner", "sdxl-refiner", False),
    ):
        model = load(pipelines(kind)[1])
        assert (model.family.name, model.family.text, model.family.inpainting) == ("sfumato", text, inpainting)
        assert model.family.size == 16  # 8 latent cells of 2 pixels
        assert (model.stride, model.latent_channels) == (2, 4)


def test_a_models_own_defaults_are_read(pipelines: Pipelines, tmp_path: Path) -> None:
    folder = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    (folder / "sfumato.json").write_text('{"size": 128, "steps": 12, "guidance": 4.5, "vocabulary": "scenes"}')
    family = load(folder).family
    assert (family.size, family.steps, family.guidance) == (128, 12, 4.5)


@pytest.mark.parametrize("stated", ['{"size": "big"}', '{"steps": 0}', '{"guidance": true}', '{"size": 12.5}', "[]"])
def test_defaults_that_make_no_sense_are_refused(pipelines: Pipelines, tmp_path: Path, stated: str) -> None:
    folder = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    (folder / "sfumato.json").write_text(stated)
    with pytest.raises(ModelFileError, match=r"sfumato\.json"):
        load(folder)


def test_a_sharded_folder_is_the_same_model(pipelines: Pipelines, tmp_path: Path) -> None:
    pipeline, folder = pipelines("sdxl")
    pipeline.save_pretrained(tmp_path / "model", max_shard_size="1MB")
    assert len(list((tmp_path / "model" / "unet").glob("*-of-*.safetensors"))) > 1
    assert same_weights(load(tmp_path / "model"), load(folder))


def same_weights(one: Model, other: Model) -> bool:
    """Whether two models have the same tensors, bit for bit."""
    pairs = [(one.unet, other.unet), (one.autoencoder, other.autoencoder)]
    pairs += list(zip(one.text.encoders, other.text.encoders, strict=True))
    states = [(first.state_dict(), second.state_dict()) for first, second in pairs]
    return all(
        first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        for first, second in states
    )


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionControlNetPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionSAGPipeline",
        "StableDiffusionPipelineSafe",
        "StableDiffusionXLControlNetUnionImg2ImgPipeline",
    ],
)
def test_a_pipeline_with_the_same_networks_is_read_and_what_lies_beside_is_noted(
    pipelines: Pipelines, tmp_path: Path, name: str
) -> None:
    """What `save_pretrained` writes of a pipeline with a ControlNet has its class, and the ControlNet beside."""
    copy = shutil.copytree(pipelines("sdxl" if "XL" in name else "sd1")[1], tmp_path / "model")
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"_class_name": name, "controlnet": ["diffusers", "ControlNetModel"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    assert "controlnet is not used" in open_model(copy).notes


def test_the_only_variant_of_a_folder_is_read_and_noted(pipelines: Pipelines, tmp_path: Path) -> None:
    pipeline, folder = pipelines("sd1")
    copy = shutil.copytree(folder, tmp_path / "model")
    for component in ("unet", "vae", "text_encoder"):
        for file in (copy / component).glob("*.safetensors"):
            half = {name: tensor.half() for name, tensor in load_file(file).items()}
            file.unlink()
            save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"))
    with pytest.raises(ModelFileError, match="no variant 'bf16'"):
        load(copy, variant="bf16")
    for asked in ("fp16", None):
        model = load(copy, variant=asked)
        assert model.dtype is torch.float32  # the default on a CPU
        assert torch.equal(model.unet.conv_in.weight, pipeline.unet.conv_in.weight.half().float())
    assert [note for note in model.notes if "variant" in note] == [
        f"{name} has no plain weights: its variant 'fp16' is used" for name in ("text_encoder", "unet", "vae")
    ]


def test_of_several_variants_without_a_plain_one_none_is_guessed(pipelines: Pipelines, tmp_path: Path) -> None:
    copy = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    file.rename(file.with_suffix(".non_ema.safetensors"))
    with pytest.raises(ModelFileError, match="variant='fp16' or variant='non_ema'"):
        load(copy)
    assert load(copy, variant="non_ema").unet is not None


def test_a_variant_that_one_component_lacks_is_noted(pipelines: Pipelines, tmp_path: Path) -> None:
    copy = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file.with_suffix(".fp16.safetensors"))
    notes = load(copy, variant="fp16").notes
    assert [note for note in notes if "variant" in note] == [
        "text_encoder has no variant 'fp16': its plain weights are used",
        "vae has no variant 'fp16': its plain weights are used",
    ]


def test_the_precision_is_float32_on_a_cpu_and_what_was_asked_for_otherwise(pipelines: Pipelines) -> None:
    folder = pipelines("sdxl")[1]
    assert {p.dtype for p in load(folder).unet.parameters()} == {torch.float32}
    model = load(folder, dtype=torch.bfloat16)
    everything = [model.unet, model.autoencoder, *model.text.encoders]
    assert {p.dtype for network in everything for p in network.parameters()} == {torch.bfloat16}
    half = load(folder, dtype=torch.float16)
    assert half.dtype is torch.float16
    assert half.autoencoder.encoder.conv_in.weight.dtype is torch.float32  # SDXL's overflows in float16
    small = load(pipelines("sd1")[1], dtype=torch.float16)
    assert small.autoencoder.encoder.conv_in.weight.dtype is torch.float16


def test_weights_too_large_for_the_precision_asked_for_are_an_error(pipelines: Pipelines, tmp_path: Path) -> None:
    folder = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    retensor(UNET, lambda tensors: tensors[LAYER].view(-1)[5].fill_(1e6))(folder)  # float16 ends at 65,504
    with pytest.raises(WeightsError, match=r"too large for torch\.float16; use bfloat16 or float32"):
        load(folder, dtype=torch.float16)
    assert load(folder, dtype=torch.bfloat16).dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_that_are_copied_have_their_channels_innermost(pipelines: Pipelines, dtype: torch.dtype) -> None:
    model = load(pipelines("sd1")[1], dtype=dtype)
    innermost = {"memory_format": torch.channels_last}
    assert model.autoencoder.decoder.conv_in.weight.is_contiguous(**innermost)
    assert model.unet.conv_in.weight.is_contiguous(**innermost) == (dtype is torch.bfloat16)


def test_nothing_can_be_trained_by_accident(pipelines: Pipelines) -> None:
    model = load(pipelines("sd1")[1])
    for network in (model.unet, model.autoencoder, *model.text.encoders):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_weights_used_as_the_file_has_them_are_written_to_without_writing_to_the_file(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    folder = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    before = (folder / UNET).read_bytes()
    model = load(folder)
    weight = model.unet.time_embedding.linear_1.weight
    kept = weight.clone()
    weight.zero_()
    assert (folder / UNET).read_bytes() == before
    assert torch.equal(load(folder).unet.time_embedding.linear_1.weight, kept)
    shutil.rmtree(folder)
    assert model.text.encoders[0].state_dict() and not weight.any()


Break = Callable[[Path], None]


def rewrite(name: str, **changes: Any) -> Break:
    """Change a JSON file's fields; None leaves one out."""

    def change(folder: Path) -> None:
        stated = {**json.loads((folder / name).read_text()), **changes}
        (folder / name).write_text(json.dumps({key: value for key, value in stated.items() if value is not None}))

    return change


def retensor(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    """Change a weight file's tensors in place."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return apply


def remove(name: str) -> Break:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def cut(name: str) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def to_pickle(folder: Path) -> None:
    (folder / UNET).unlink()
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")


def to_evil_pickle(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")


UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
LAYER = "mid_block.resnets.0.conv1.weight"
BROKEN: dict[str, tuple[Break, str]] = {
    "no index": (remove("model_index.json"), "no model_index.json"),
    "another pipeline": (rewrite("model_index.json", _class_name="FluxPipeline"), "'FluxPipeline' is not supported"),
    "a pipeline that is a list": (rewrite("model_index.json", _class_name=["os", "system"]), "is not supported"),
    "no text encoder": (rewrite("model_index.json", text_encoder=[None, None]), "no text encoder"),
    "no UNet folder": (remove("unet"), "unet is missing"),
    "no UNet config": (remove("unet/config.json"), r"config\.json is missing"),
    "no UNet weights": (remove(UNET), "has no diffusion_pytorch_model.safetensors"),
    "an empty pickle": (to_pickle, "it holds no tensors"),
    "a pickle that would run code": (to_evil_pickle, r"names 'os\.system'"),
    "no tokenizer": (remove("tokenizer"), "tokenizer is missing"),
    "no scheduler": (remove("scheduler"), "scheduler_config.json is missing"),
    "an unknown prediction": (
        rewrite("scheduler/scheduler_config.json", prediction_type="flow"),
        "'flow' is not known",
    ),
    "an unknown scheduler": (rewrite("scheduler/scheduler_config.json", _class_name="os.system"), "'os.system'"),
    "another class in unet": (rewrite("unet/config.json", _class_name="Transformer2DModel"), "a Transformer2DModel"),
    "another class in vae": (rewrite("vae/config.json", _class_name="VQModel"), "a VQModel"),
    "an option we lack": (rewrite("unet/config.json", class_embed_type="timestep"), "class_embed_type"),
    "a config of another size": (rewrite("unet/config.json", block_out_channels=[64, 64]), "of another shape"),
    "a deeper config": (rewrite("unet/config.json", layers_per_block=2), "tensors missing"),
    "a text encoder of another width": (rewrite("unet/config.json", cross_attention_dim=64), "mixed from different"),
    "another latent": (rewrite("vae/config.json", latent_channels=8), "supported are UNets with 8 channels"),
    "a depth-conditioned UNet": (rewrite("unet/config.json", in_channels=5), "a depth-conditioned model"),
    "InstructPix2Pix without its weights": (rewrite("unet/config.json", in_channels=8), "of another shape"),
    "a truncated UNet": (cut(UNET), "truncated"),
    "a truncated text encoder": (cut(TEXT), "truncated"),
    "a missing tensor": (retensor(UNET, lambda t: t.pop(LAYER)), f"1 tensor missing, first '{LAYER}'"),
    "a tensor too many": (retensor(UNET, lambda t: t.update(x=torch.ones(1))), "1 tensor too many, first 'x'"),
    "a tensor of another shape": (retensor(UNET, lambda t: t.update({LAYER: torch.ones(3)})), r"\[3\] instead of"),
    "a tensor of integers": (
        retensor(UNET, lambda t: t.update({LAYER: torch.ones_like(t[LAYER], dtype=torch.int8)})),
        "holds I8",
    ),
    "a NaN in the UNet": (retensor(UNET, lambda t: t[LAYER].view(-1)[5].fill_(float("nan"))), "1 of 36,864 numbers"),
    "an infinity in the VAE": (
        retensor(VAE, lambda t: t["encoder.conv_in.weight"].view(-1)[0].fill_(float("inf"))),
        "not finite",
    ),
    "a NaN in the text encoder": (
        retensor(TEXT, lambda t: next(iter(t.values())).view(-1)[0].fill_(float("nan"))),
        "not finite",
    ),
    "the VAE in place of the UNet": (
        lambda folder: shutil.copy(folder / VAE, folder / UNET) and None,
        "looks like a VAE only",
    ),
    "the UNet in place of the VAE": (
        lambda folder: shutil.copy(folder / UNET, folder / VAE) and None,
        "not an autoencoder",
    ),
    "a web page in place of the UNet": (
        lambda folder: (folder / UNET).write_text("<html>no</html>") and None,
        "an HTML page",
    ),
    "a vocabulary cut short": (lambda folder: (folder / "tokenizer" / "vocab.json").write_text("{") and None, "vocab"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_gets_one_error_that_says_what_is_wrong(
    pipelines: Pipelines, tmp_path: Path, case: str
) -> None:
    change, says = BROKEN[case]
    folder = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    if case == "a vocabulary cut short":
        for file in (folder / "tokenizer").glob("tokenizer.json"):
            file.unlink()
        shutil.copy(pipelines("sd1")[1].parent / "one" / "merges.txt", folder / "tokenizer")
    change(folder)
    with pytest.raises(SfumatoError, match=says) as caught:
        load(folder)
    assert isinstance(caught.value, ModelFileError | ConfigError)
    assert len(str(caught.value)) < 1500


VALUES = (None, "two", -1, 0, 1.5, 10**9, [], ["x"], [[[1]]], {"a": 1})


@pytest.mark.parametrize("name", ["unet/config.json", "vae/config.json", "text_encoder/config.json"])
def test_no_value_in_a_configuration_does_more_than_an_error_of_ours(
    pipelines: Pipelines, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(pipelines("sd1")[1], tmp_path / "model")
    right = (folder / name).read_text()
    for key in json.loads(right):
        for value in VALUES if key.startswith(("num_", "layers", "block", "hidden")) else VALUES[:5]:
            (folder / name).write_text(json.dumps({**json.loads(right), key: value}))
            with contextlib.suppress(SfumatoError):
                open_model(folder)
    (folder / name).write_text(right)
    assert load(folder).name == str(folder)


def test_no_value_in_a_schedulers_configuration_does_more_than_an_error_of_ours(pipelines: Pipelines) -> None:
    for kind in ("sd1", "sd2", "sdxl"):
        stated = json.loads((pipelines(kind)[1] / SCHEDULER).read_text())
        for key in stated:
            for value in VALUES:
                with contextlib.suppress(SfumatoError):
                    sampling_config({**stated, key: value}, Path("scheduler_config.json"))


def test_networks_of_two_kinds_do_not_make_a_model(pipelines: Pipelines, tmp_path: Path) -> None:
    folder = shutil.copytree(pipelines("sdxl")[1], tmp_path / "model")
    shutil.rmtree(folder / "text_encoder_2")
    shutil.copytree(pipelines("sd1")[1] / "text_encoder", folder / "text_encoder_2")
    with pytest.raises(WeightsError, match="mixed from different models"):
        load(folder)


def test_without_a_name_the_embedded_model_is_loaded_or_an_error_says_that_there_is_none() -> None:
    try:
        model = load()
    except SfumatoError as error:
        assert "no embedded one" in str(error)
    else:
        assert model.family.name == "sfumato"
