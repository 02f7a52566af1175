"""A model in the diffusers folder format, opened without reading a weight."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.diffusion.denoiser import Prediction
from sfumato.errors import ConfigError, ModelFileError
from sfumato.model import TextKind
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.text.tokenizer import Tokenizer
from sfumato.weights.autoencoder_file import autoencoder_component, read_autoencoder_config
from sfumato.weights.build import Part, check_parts
from sfumato.weights.companion import companion_beside
from sfumato.weights.component_files import (
    TEXT_STEM,
    UNET_STEM,
    component_variant,
    find_weights,
    only_variant,
    variants,
)
from sfumato.weights.distilled import (
    distilled_by_name,
    distilled_by_scheduler,
    names_of,
    with_distillation,
)
from sfumato.weights.families import family_of
from sfumato.weights.files import open_file, read_json
from sfumato.weights.naming import identity
from sfumato.weights.network_config import network_config, network_of
from sfumato.weights.openclip import flat_naming
from sfumato.weights.opened import (
    INDEX_OPTIONS,
    Component,
    Opened,
    check_fit,
    spelled_prediction,
    text_names,
    with_defaults,
)

# Of diffusers' classes those whose networks are these; what else they are, such as a ControlNet, lies beside.
PIPELINES = frozenset(
    f"{family}{task}Pipeline"
    for family, tasks in {
        "StableDiffusion": " Img2Img Inpaint InstructPix2Pix Adapter SAG AttendAndExcite DiffEdit Panorama"
        " Paradigms ModelEditing",
        "StableDiffusionXL": " Img2Img Inpaint InstructPix2Pix Adapter",
        "StableDiffusionControlNet": " Img2Img Inpaint PAG PAGInpaint",
        "StableDiffusionXLControlNet": " Img2Img Inpaint Union UnionImg2Img UnionInpaint PAG PAGImg2Img",
        "StableDiffusionPAG": " Img2Img Inpaint",
        "StableDiffusionXLPAG": " Img2Img Inpaint",
        "LatentConsistencyModel": " Img2Img",
    }.items()
    for task in tasks.split(" ")
) | {"StableDiffusionInpaintPipelineLegacy", "StableDiffusionPipelineSafe"}
NETWORKS = frozenset({"unet", "vae", "text_encoder", "text_encoder_2"})
READ = NETWORKS | {"tokenizer", "tokenizer_2", "scheduler"}
POSITION_IDS = frozenset({"text_model.embeddings.position_ids", "embeddings.position_ids"})  # 0, 1, 2, ...


def open_folder(path: Path, variant: str | None = None, prediction: str | None = None) -> Opened:
    """Open a diffusers folder. `prediction` overrides what its scheduler says.

    Raises ModelFileError for a folder or a file that cannot be read, WeightsError for networks that do not fit.
    """
    index = read_index(path)
    kind = text_kind(path, index)
    check_variant(path, variant, index)
    unet_config = network_config(
        UNetConfig.from_json, read_config(path / "unet", "UNet2DConditionModel"), path / "unet" / "config.json"
    )
    autoencoder_config = read_autoencoder_config(need(path / "vae" / "config.json"))
    text = [open_text(path / name, component_variant(path / name, TEXT_STEM, variant)) for name in text_names(kind)]
    kind = settle_kind(kind, [config for config, _ in text])
    family = family_of(unet_config, autoencoder_config, kind)
    check_fit(path, unet_config, autoencoder_config, tuple(config for config, _ in text))
    scheduler = read_json(need(path / "scheduler" / "scheduler_config.json"))
    own = path / "sfumato.json"
    autoencoder_weights = find_weights(path / "vae", UNET_STEM, component_variant(path / "vae", UNET_STEM, variant))
    few = distilled_by_scheduler(scheduler) or distilled_by_name(names_of(path))
    stated, why = folder_prediction(path, scheduler, prediction)
    companion, unused = (None, None) if family.inpainting or family.instructed else companion_beside(path, variant)
    return Opened(
        path=path,
        family=with_defaults(with_distillation(family, few), read_json(own) if own.is_file() else {}, own),
        reason=f"{index['_class_name']} with a UNet of {unet_config.block_out_channels[0]} features that attends to "
        f"{unet_config.cross_attention_dim} text features from {unet_config.in_channels} channels"
        f"{few.told if few and not own.is_file() else ''}",
        unet=open_unet(path / "unet", unet_config, component_variant(path / "unet", UNET_STEM, variant)),
        autoencoder=autoencoder_component(path / "vae", autoencoder_config, open_file(autoencoder_weights)),
        text=tuple(component for _, component in text),
        tokenizers=tuple(
            Tokenizer.from_folder(need(path / name.replace("text_encoder", "tokenizer"))) for name in text_names(kind)
        ),
        scheduler=scheduler,
        prediction=stated,
        prediction_reason=why,
        options={key: index[key] for key in INDEX_OPTIONS if key in index},
        notes=notes(path, index, variant) + ((unused,) if unused else ()),
        companion=companion,
    )


def read_index(path: Path) -> dict[str, Any]:
    """Read model_index.json; raises ModelFileError for a folder that is no model, or a model of another kind."""
    file = path / "model_index.json"
    if not file.is_file():
        files = sorted(entry.name for entry in path.iterdir())[:5]
        raise ModelFileError(
            f"{path}: not a model in the diffusers format: it has no model_index.json; it has "
            f"{', '.join(files) or 'nothing'}. Name the folder that has one, or a .safetensors file in it."
        )
    index = read_json(file)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise ModelFileError(
            f"{path}: a {kind!r:.80} is not supported; supported are Stable Diffusion 1.x, 2.x and XL, such as "
            "StableDiffusionPipeline, StableDiffusionXLPipeline and StableDiffusionControlNetPipeline."
        )
    return index


def has(index: Mapping[str, Any], name: str) -> bool:
    """Say whether the index lists a component; [null, null] stands for none."""
    entry = index.get(name)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def text_kind(path: Path, index: Mapping[str, Any]) -> TextKind:
    """Tell from the components which text encoders a model has. SD 1.x and 2.x are not told apart here."""
    first, second = has(index, "text_encoder"), has(index, "text_encoder_2")
    if not first and not second:
        raise ModelFileError(f"{path}: its model_index.json lists no text encoder; a whole model has one.")
    if second:
        return "sdxl" if first else "sdxl-refiner"
    return "clip"


def settle_kind(kind: TextKind, text: list[TextEncoderConfig]) -> TextKind:
    """Tell SD 2.x from SD 1.x: OpenCLIP's encoders have the exact GELU, OpenAI's an approximation."""
    return "openclip" if kind == "clip" and text[0].hidden_act == "gelu" else kind


def need(path: Path) -> Path:
    """Return a path that must be there for the model to be whole."""
    if not path.exists():
        raise ModelFileError(f"{path.parent}: incomplete: {path.name} is missing. Download the whole model.")
    return path


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """Read a component's config.json; raises ModelFileError if it is another class's."""
    stated = read_json(need(need(folder) / "config.json"))
    if stated.get("_class_name", kind) != kind:
        raise ModelFileError(f"{folder / 'config.json'}: describes a {stated['_class_name']}; expected a {kind}.")
    return stated


def check_variant(path: Path, variant: str | None, index: Mapping[str, Any]) -> None:
    """Raise ModelFileError if no component is there in the variant that was asked for."""
    if variant is None:
        return
    found = {name: variants(path / name, stem_of(name)) for name in sorted(NETWORKS) if has(index, name)}
    if not any(variant in those for those in found.values()):
        there = "; ".join(f"{name}: {', '.join(v or 'plain' for v in those)}" for name, those in found.items())
        raise ModelFileError(f"{path}: has no variant {variant!r}; there are {there}.")


def stem_of(name: str) -> str:
    """Return how the weight files of a component start."""
    return TEXT_STEM if name.startswith("text_encoder") else UNET_STEM


def open_unet(folder: Path, config: UNetConfig, variant: str | None) -> Component:
    """Compare the UNet's file with its configuration."""
    tensors = open_file(find_weights(folder, UNET_STEM, variant))
    network = network_of(lambda: UNet(config), folder / "config.json")
    part = Part("unet", network, identity(list(network.state_dict())))
    check_parts(folder, "this UNet", [part], tensors, set(tensors) - set(network.state_dict()))
    return Component(part, tensors)


def open_text(folder: Path, variant: str | None) -> tuple[TextEncoderConfig, Component]:
    """Compare a text encoder's file, in transformers' old or new naming, with its configuration."""
    stated = read_json(need(need(folder) / "config.json"))
    config = network_config(TextEncoderConfig.from_json, stated, folder / "config.json")
    tensors = open_file(find_weights(folder, TEXT_STEM, variant))
    network = network_of(lambda: TextEncoder(config), folder / "config.json")
    names = list(network.state_dict())
    naming = flat_naming(names) if "embeddings.token_embedding.weight" in tensors else identity(names)
    part = Part("text encoder", network, naming)
    extra = set(tensors) - {rule.theirs for rule in naming} - POSITION_IDS
    check_parts(folder, "this text encoder", [part], tensors, extra)
    return config, Component(part, tensors)


def folder_prediction(path: Path, scheduler: Mapping[str, Any], asked: str | None) -> tuple[Prediction, str]:
    """Return the prediction type, what was asked for, else what the scheduler says; and which of them it was."""
    if asked is not None:
        return spelled_prediction(asked, "prediction"), "as was said"
    stated = scheduler.get("prediction_type", "epsilon")  # the default of every scheduler class in diffusers
    try:
        return spelled_prediction(
            stated, f"{path / 'scheduler' / 'scheduler_config.json'}"
        ), "its scheduler_config.json"
    except ConfigError as error:
        raise ModelFileError(str(error)) from error


def notes(path: Path, index: Mapping[str, Any], variant: str | None) -> tuple[str, ...]:
    """Name what is in the folder and is not used, and where another variant is used than was asked for."""
    unused = sorted(name for name in index if not name.startswith("_") and name not in READ and has(index, name))
    found = [f"{name} is not used" for name in unused]
    for name in sorted(NETWORKS):
        there = variants(path / name, stem_of(name)) if has(index, name) else [variant or ""]
        if (variant or "") in there:
            continue
        lacks = f"variant {variant!r}" if variant else "plain weights"
        used = f"its variant {only!r} is used" if (only := only_variant(there)) else "its plain weights are used"
        found.append(f"{name} has no {lacks}: {used}")
    return tuple(found)
