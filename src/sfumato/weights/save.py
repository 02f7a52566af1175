"""A Model becomes a diffusers folder, or a single file with the original names; whole or not at all."""

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.diffusion.denoiser import Prediction
from sfumato.errors import OutputFormatError
from sfumato.model import Model
from sfumato.text.clip_vocabulary import clip_tokenizer
from sfumato.text.tokenizer import Tokenizer
from sfumato.weights.companion_save import carry
from sfumato.weights.component_files import TEXT_STEM, UNET_STEM
from sfumato.weights.ldm import AUTOENCODER_PREFIX, UNET_PREFIX, autoencoder_naming, unet_naming
from sfumato.weights.naming import Rule, prefixed
from sfumato.weights.opened import INDEX_OPTIONS, text_names
from sfumato.weights.single import METADATA, TOKENIZER_FILES, text_naming, text_prefixes
from sfumato.weights.streaming import write_stream
from sfumato.weights.writing import folder_written_aside, written_aside

log = logging.getLogger(__name__)

# The version of diffusers whose configuration files these are; it only decides about warnings there.
DIFFUSERS_VERSION = "0.30.0"
PIPELINES = {
    ("clip", False): "StableDiffusionPipeline",
    ("clip", True): "StableDiffusionInpaintPipeline",
    ("openclip", False): "StableDiffusionPipeline",
    ("openclip", True): "StableDiffusionInpaintPipeline",
    ("sdxl", False): "StableDiffusionXLPipeline",
    ("sdxl", True): "StableDiffusionXLInpaintPipeline",
    ("sdxl-refiner", False): "StableDiffusionXLImg2ImgPipeline",
}
INSTRUCTED = {
    "clip": "StableDiffusionInstructPix2PixPipeline",
    "openclip": "StableDiffusionInstructPix2PixPipeline",
    "sdxl": "StableDiffusionXLInstructPix2PixPipeline",
    "sdxl-refiner": "StableDiffusionXLInstructPix2PixPipeline",
}
# github.com/Stability-AI/ModelSpec: architectures by family and prediction
ARCHITECTURES: dict[tuple[str, Prediction], str] = {
    ("sd15", "epsilon"): "stable-diffusion-v1",
    ("sd2", "epsilon"): "stable-diffusion-v2-512",
    ("sd2", "v_prediction"): "stable-diffusion-v2-768-v",
    ("sdxl", "epsilon"): "stable-diffusion-xl-v1-base",
    ("sdxl-refiner", "epsilon"): "stable-diffusion-xl-v1-refiner",
}


def save_folder(
    model: Model,
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a diffusers folder, which diffusers' own pipelines load; return its path.

    `dtype`: the precision of the weights, by default the model's own. `variant` names the files, such as "fp16".
    Raises OutputError if the folder exists (unless it may be overwritten) or cannot be written, or a weight does not
    fit the precision; nothing is left then.
    """
    path = Path(path)
    states = {name: network.state_dict() for name, network, _ in networks_of(model)}
    with folder_written_aside(path, overwrite=overwrite) as folder:

        def write_network(name: str, file: Path) -> None:
            write_tensors(file, states[name], {"format": "pt"}, dtype)

        write_folder(model, folder, write_network, variant=variant)
    return path


def write_folder(
    model: Model, folder: Path, write_network: Callable[[str, Path], None], *, variant: str | None = None
) -> None:
    """Fill a folder in the diffusers format; `write_network` writes the weights of a network, by its name there."""
    write_json(folder / "model_index.json", index_of(model))
    write_json(folder / "sfumato.json", defaults_of(model))
    write_json(folder / "scheduler" / "scheduler_config.json", dict(model.scheduler))
    for name, _, config in networks_of(model):
        write_json(
            folder / name / "config.json",
            {**config, "_diffusers_version": DIFFUSERS_VERSION} if name in ("unet", "vae") else config,
        )
        stem = TEXT_STEM if name.startswith("text_encoder") else UNET_STEM
        file = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
        write_network(name, folder / name / file)
        if name == "unet" and variant is None and model.companion is not None:
            carry(model.companion.files[0], folder / name / file, folder)
    for name, tokenizer in zip(text_names(model.family.text), model.text.tokenizers, strict=True):
        tokenizer.save(folder / name.replace("text_encoder", "tokenizer"))


def save_file(model: Model, path: Path | str, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> Path:
    """Write a model as one .safetensors file with the original names, which other programs load; return its path.

    Its metadata carry the configurations, so that sfumato reads back a model of any size; other programs read the
    published sizes only. The last layer of SD 2.x's text encoder, which nothing uses, is not written. Options and
    errors are those of `save_folder`.
    """
    path = Path(path)
    if model.companion is not None:
        log.warning("%s is left out: a single file has no room for it", model.companion.files[0])
    if path.suffix != ".safetensors":
        raise OutputFormatError(f"{path}: a single file is written as .safetensors; name it so.")
    states = {name: network.state_dict() for name, network, _ in networks_of(model)}
    tensors = {
        rule.theirs: rule.write([states[network][name] for name in rule.ours]) for network, rule in single_rules(model)
    }
    with written_aside(path, overwrite=overwrite) as aside:
        write_tensors(aside, tensors, metadata_of(model), dtype)
    return path


def single_rules(model: Model) -> list[tuple[str, Rule]]:
    """Return what a single file of a model holds: each of its tensors' rules, and the network that it is of."""
    names = list(model.unet.state_dict())
    rules = [("unet", rule) for rule in prefixed(unet_naming(model.unet.config, names), UNET_PREFIX)]
    names = list(model.autoencoder.state_dict())
    naming = prefixed(autoencoder_naming(model.autoencoder.config, names), AUTOENCODER_PREFIX)
    rules += [("vae", rule) for rule in naming]
    kind = model.family.text
    for name, prefix, encoder in zip(text_names(kind), text_prefixes(kind), model.text.encoders, strict=True):
        naming = text_naming(encoder.config, prefix, list(encoder.state_dict()), ())
        rules += [(name, rule) for rule in naming]
    return rules


def networks_of(model: Model) -> list[tuple[str, nn.Module, dict[str, Any]]]:
    """List the networks with their names in a folder and their configurations."""
    text = zip(text_names(model.family.text), model.text.encoders, strict=True)
    return [
        ("unet", model.unet, model.unet.config.to_json()),
        ("vae", model.autoencoder, model.autoencoder.config.to_json()),
        *((name, encoder, encoder.config.to_json()) for name, encoder in text),
    ]


def index_of(model: Model) -> dict[str, Any]:
    """Return model_index.json: the pipeline's class and that of each component."""
    family = model.family
    pipeline = INSTRUCTED[family.text] if family.instructed else PIPELINES[family.text, family.inpainting]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": DIFFUSERS_VERSION}
    unused = ["feature_extractor", "image_encoder"]
    if model.family.text in ("clip", "openclip"):
        index["requires_safety_checker"] = False
        unused.append("safety_checker")
    else:
        unused += ["text_encoder", "tokenizer"]
        index["force_zeros_for_empty_prompt"] = model.text.rules.zero_empty_negative
    index.update({name: [None, None] for name in unused})
    for name, encoder in zip(text_names(model.family.text), model.text.encoders, strict=True):
        index[name] = [
            "transformers",
            "CLIPTextModelWithProjection" if encoder.config.with_projection else "CLIPTextModel",
        ]
        index[name.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    index["scheduler"] = ["diffusers", model.scheduler["_class_name"]]
    index["unet"] = ["diffusers", "UNet2DConditionModel"]
    index["vae"] = ["diffusers", "AutoencoderKL"]
    return {**index, **{key: model.options[key] for key in INDEX_OPTIONS if key in model.options}}


def defaults_of(model: Model) -> dict[str, Any]:
    """Return sfumato.json: what the model draws when nothing else is said."""
    family = model.family
    stated = {"title": family.title, "size": family.size, "steps": family.steps, "guidance": family.guidance}
    return stated | ({} if family.preview is None else {"preview": [list(row) for row in family.preview]})


def metadata_of(model: Model) -> dict[str, str]:
    """Return a single file's metadata: what its tensors do not show."""
    stated = {
        "kind": model.family.text,
        "unet": model.unet.config.to_json(),
        "autoencoder": model.autoencoder.config.to_json(),
        "text": [encoder.config.to_json() for encoder in model.text.encoders],
        "tokenizers": [tokenizer_metadata(tokenizer) for tokenizer in model.text.tokenizers],
        "scheduler": dict(model.scheduler),
        "prediction": model.prediction,
        "options": dict(model.options),
        "defaults": defaults_of(model),
    }
    metadata = {"format": "pt", METADATA: json.dumps(stated), "modelspec.prediction_type": spec_prediction(model)}
    architecture = ARCHITECTURES.get((model.family.name, model.prediction))
    return {**metadata, "modelspec.architecture": architecture} if architecture else metadata


def spec_prediction(model: Model) -> str:
    """Return the prediction type as modelspec spells it."""
    return "v" if model.prediction == "v_prediction" else model.prediction


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, str]:
    """Return a tokenizer's files, or only its pad token when it is CLIP's own."""
    files = tokenizer_files(tokenizer)
    pad = tokenizer.token(tokenizer.pad)
    if len(tokenizer) == len(clip_tokenizer()) and tokenizer_files(clip_tokenizer(pad)) == files:
        return {"clip": pad}
    return files


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the text of each file that a tokenizer saves."""
    with tempfile.TemporaryDirectory() as name:
        tokenizer.save(name)
        return {file: Path(name, file).read_text(encoding="utf-8") for file in TOKENIZER_FILES}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], dtype: torch.dtype | None
) -> None:
    """Write a safetensors file. Raises OutputError if it cannot be written or a weight leaves the precision's range."""
    outline = {name: (dtype or tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_stream(path, outline, lambda name: tensors[name].detach().to("cpu", dtype), metadata)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, its folder made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
