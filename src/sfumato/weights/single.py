"""A model in one .safetensors file with the original (CompVis and Stability) names, opened without reading a weight.

Such a file says nothing about itself but its tensors' names and shapes. Files that sfumato writes also carry the
networks' configurations in their metadata, under "sfumato", so that models of any size can be read back.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfumato.diffusion.denoiser import Prediction
from sfumato.errors import ModelFileError, WeightsError
from sfumato.model import Family, TextKind
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.text.clip_vocabulary import clip_tokenizer
from sfumato.text.tokenizer import Tokenizer
from sfumato.text.vocabulary import END
from sfumato.weights.build import Part, check_parts, shapes_of
from sfumato.weights.distilled import distilled_by_name, names_of, with_distillation
from sfumato.weights.families import Blueprint, blueprint, family_of
from sfumato.weights.fewer_layers import with_fewer_layers
from sfumato.weights.files import TensorFile, open_file, read_json
from sfumato.weights.ldm import (
    AUTOENCODER_PREFIX,
    EMA_PREFIX,
    UNET_PREFIX,
    autoencoder_naming,
    ema_name,
    unet_naming,
)
from sfumato.weights.naming import Naming, Rule, identity, prefixed
from sfumato.weights.network_config import network_config, network_of
from sfumato.weights.openclip import (
    CLIP_PREFIX,
    OPENCLIP_PREFIX,
    REFINER_PREFIX,
    SDXL_CLIP_PREFIX,
    SDXL_OPENCLIP_PREFIX,
    flat_naming,
    openclip_naming,
)
from sfumato.weights.opened import Component, Opened, check_fit, spelled_prediction, with_defaults
from sfumato.weights.recognise import Recognised, Shapes, recognise

METADATA = "sfumato"  # the metadata key of the configurations
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
FLAT = "embeddings.token_embedding.weight"  # after the prefix, where transformers' `text_model.` was left out

# What single files hold beside the networks, and why it is not needed. The first pattern that fits names it.
STRAYS = (
    (re.compile(r"model_ema\.(decay|num_updates)"), "counters of the averaged copy"),
    (re.compile(r"model_ema\."), "an averaged copy of the UNet (EMA)"),
    (re.compile(r"first_stage_model\.(loss|model_ema)\."), "losses and averages of the autoencoder's training"),
    (re.compile(r".*position_ids"), "position ids, which are always 0, 1, 2, ..."),
    (re.compile(r".*(logit_scale|attn_mask)"), "CLIP's scale or mask, unused when drawing"),
    (re.compile(r"cond_stage_model\.model\.(transformer\.resblocks\.23\..*|text_projection)"), "OpenCLIP's unused end"),
    (re.compile(r"cond(_stage_model|itioner\.embedders\.0)\.transformer\.text_projection.*"), "an unused projection"),
    (re.compile(r"cond(_stage_model|itioner\.embedders\.\d)\..*(visual|vision_model)\..*"), "CLIP's vision tower"),
    (re.compile(r"(model\.)?scale_factor|logvar|global_step|lvlb_weights"), "counters and factors of the training"),
    (re.compile(r"(sqrt_.*|.*alphas_cumprod.*|betas|posterior_.*|log_one_minus.*)"), "tables of the noise schedule"),
    (re.compile(r"denoiser\.sigmas"), "tables of the noise schedule"),
    (re.compile(r"v_pred|ztsnr"), "markers of the prediction type"),
    (re.compile(r"(optimizer|lr_scheduler|embedding_manager|callbacks)\..*"), "the state of a training"),
)
PARTS = (UNET_PREFIX, AUTOENCODER_PREFIX, "cond_stage_model.", "conditioner.")


@dataclass(frozen=True)
class Plan:
    """What a single file should hold: configurations, tokenizers, and what it says about itself."""

    blueprint: Blueprint
    tokenizers: tuple[Tokenizer, ...]
    options: Mapping[str, Any]


def open_single(
    path: Path, prediction: str | None = None, *, ema: bool = False, autoencoder_brought: bool = False
) -> Opened:
    """Open a single-file checkpoint; with `ema`, its averaged UNet instead of the trained one.

    `autoencoder_brought`: another is used in place of the file's own, which may be missing.
    Raises WeightsError for a file that is not a whole checkpoint of one family.
    """
    tensors = open_file(path)
    shapes = shapes_of(tensors)
    found = recognise(shapes)
    plan = (
        read_plan(path, tensors.metadata[METADATA])
        if METADATA in tensors.metadata
        else plan_of(path, found, shapes, bare=autoencoder_brought)
    )
    build = plan.blueprint
    kind = build.family.text
    check_fit(path, build.unet, build.autoencoder, build.text)
    unet = unet_component(path, build.unet, tensors, ema=ema)
    autoencoder = autoencoder_component(path, build.autoencoder, tensors)
    text = tuple(
        text_component(path, config, prefix, tensors)
        for config, prefix in zip(build.text, text_prefixes(kind), strict=True)
    )
    components = (unet, autoencoder, *text)
    known = {rule.theirs for component in components for rule in component.part.naming}
    unknown, notes = sort_strays([name for name in tensors if name not in known], ema=ema)
    bare = autoencoder_brought and found.almost is not None
    checked = (unet, *text) if bare else components
    check_parts(path, build.family.title, [component.part for component in checked], tensors, unknown)
    stated, why = told_prediction(path, build.family, tensors, prediction)
    family, scheduler, reason = build.family, build.scheduler, "its metadata has the configurations"
    if METADATA not in tensors.metadata:  # which have defaults of its own
        few = distilled_by_name([*names_of(path), tensors.metadata.get("modelspec.title", "")])
        family, reason = with_distillation(family, few), f"{found.reason}{few.told if few else ''}"
        scheduler = {**scheduler, **few.scheduler} if few else scheduler
    return Opened(
        path=path,
        family=family,
        reason=reason,
        unet=unet,
        autoencoder=autoencoder,
        text=text,
        tokenizers=plan.tokenizers,
        scheduler=scheduler_of(scheduler, stated, zero_terminal_snr="ztsnr" in tensors),
        prediction=stated,
        prediction_reason=why,
        options=plan.options,
        notes=notes,
    )


def plan_of(path: Path, found: Recognised, shapes: Shapes, *, bare: bool = False) -> Plan:
    """Return the published configurations of the family that was recognised. Raises WeightsError if there is none.

    `bare`: the autoencoder may be missing.
    """
    family = found.family or (found.almost if bare else None)
    if family is None:
        remedy = "Name a whole checkpoint of Stable Diffusion 1.x, 2.x or XL."
        if found.almost is not None:
            remedy = "Name an autoencoder for it, too: vae, or --vae."
        raise WeightsError(
            f"{path} is not a model that can draw: it looks like {found.what} ({found.reason}). {remedy}"
        )
    pads = {"clip": (END,), "openclip": ("!",), "sdxl": (END, "!"), "sdxl-refiner": ("!",)}[family.text]
    refiner = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
    options = refiner if family.text == "sdxl-refiner" else {}
    build = blueprint(family)
    build = replace(build, unet=with_fewer_layers(build.unet, shapes))
    return Plan(build, tuple(clip_tokenizer(pad) for pad in pads), options)


def read_plan(path: Path, text: str) -> Plan:
    """Read the configurations that sfumato wrote into a file's metadata; they are checked like any others."""
    try:
        stated = json.loads(text)
        configs, kind = stated["text"], stated["kind"]
        unet = network_config(UNetConfig.from_json, stated["unet"], path)
        autoencoder = network_config(AutoencoderConfig.from_json, stated["autoencoder"], path)
        encoders = tuple(network_config(TextEncoderConfig.from_json, config, path) for config in configs)
        prefixes = text_prefixes(kind)
        tokenizers = tuple(read_tokenizer(tokenizer) for tokenizer in stated["tokenizers"])
        scheduler, options, defaults = dict(stated["scheduler"]), dict(stated["options"]), dict(stated["defaults"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path}: its metadata {METADATA!r} is damaged: {error!r}") from error
    if not len(prefixes) == len(encoders) == len(tokenizers):
        raise ModelFileError(f"{path}: its metadata {METADATA!r} has {len(encoders)} text encoders, not as {kind!r}.")
    family = with_defaults(family_of(unet, autoencoder, kind), defaults, path)
    build = Blueprint(family=family, unet=unet, autoencoder=autoencoder, text=encoders, scheduler=scheduler)
    return Plan(build, tokenizers, options)


def read_tokenizer(stated: Mapping[str, str]) -> Tokenizer:
    """Build a tokenizer from metadata: CLIP's own with a pad token, or one whose files are written out."""
    if "clip" in stated:
        return clip_tokenizer(stated["clip"])
    with tempfile.TemporaryDirectory() as folder:
        for name in TOKENIZER_FILES:
            Path(folder, name).write_text(stated[name], encoding="utf-8")
        return Tokenizer.from_folder(folder)


def text_prefixes(kind: TextKind) -> tuple[str, ...]:
    """Return the prefixes of a family's text encoders in a single file. Raises KeyError for an unknown kind."""
    return {
        "clip": (CLIP_PREFIX,),
        "openclip": (OPENCLIP_PREFIX,),
        "sdxl": (SDXL_CLIP_PREFIX, SDXL_OPENCLIP_PREFIX),
        "sdxl-refiner": (REFINER_PREFIX,),
    }[kind]


def unet_component(path: Path, config: UNetConfig, tensors: TensorFile, *, ema: bool) -> Component:
    """Return the UNet and the names that its tensors, or their averaged copies, have in a single file."""
    network = network_of(lambda: UNet(config), path)
    naming = prefixed(unet_naming(config, list(network.state_dict())), UNET_PREFIX)
    if ema:
        if not any(name.startswith(EMA_PREFIX) for name in tensors):
            raise WeightsError(f"{path}: has no averaged copy of the UNet (EMA); load it without asking for one.")
        naming = tuple(Rule(ema_name(rule.theirs), rule.ours, rule.kind) for rule in naming)
    return Component(Part("unet", network, naming), tensors)


def autoencoder_component(path: Path, config: AutoencoderConfig, tensors: TensorFile) -> Component:
    """Return the autoencoder and the names that its tensors have in a single file."""
    network = network_of(lambda: Autoencoder(config), path)
    naming = prefixed(autoencoder_naming(config, list(network.state_dict())), AUTOENCODER_PREFIX)
    return Component(Part("autoencoder", network, naming), tensors)


def text_component(path: Path, config: TextEncoderConfig, prefix: str, tensors: TensorFile) -> Component:
    """Return a text encoder and the names that its tensors have in a single file."""
    network = network_of(lambda: TextEncoder(config), path)
    return Component(
        Part("text encoder", network, text_naming(config, prefix, list(network.state_dict()), tensors)), tensors
    )


def text_naming(config: TextEncoderConfig, prefix: str, names: list[str], tensors: Iterable[str]) -> Naming:
    """Return the rules for a text encoder: OpenCLIP's names or, behind `transformer.`, transformers' own."""
    if not prefix.endswith("transformer."):
        return prefixed(openclip_naming(config), prefix)
    return prefixed(flat_naming(names) if prefix + FLAT in tensors else identity(names), prefix)


def sort_strays(names: list[str], *, ema: bool) -> tuple[list[str], tuple[str, ...]]:
    """Part the tensors that belong to no network into errors and notes.

    Errors lie inside a network and are not known to be harmless; notes say what else is in the file.
    """
    groups: dict[str, list[str]] = {}
    unknown = []
    for name in names:
        what = next((what for pattern, what in STRAYS if pattern.match(name)), None)
        if what is None and name.startswith(PARTS):
            if ema and name.startswith(UNET_PREFIX):
                what = "the trained UNet, as its averaged copy was asked for"
            else:
                unknown.append(name)
                continue
        groups.setdefault(what or "unknown to sfumato", []).append(name)
    notes = tuple(
        f"{len(found)} tensors not used, {what}: {found[0]}{', ...' if len(found) > 1 else ''}"
        for what, found in groups.items()
    )
    return unknown, notes


def told_prediction(
    path: Path, family: Family, tensors: TensorFile, asked: str | None
) -> tuple[Prediction | None, str]:
    """Return what the UNet predicts and what says so, from the first; None for SD 2.x when none does, never a guess.

    Asked for; the file's metadata; a marker tensor; a configuration beside the file; the family.
    """
    metadata = tensors.metadata
    if asked is not None:
        return spelled_prediction(asked, "prediction"), "as was said"
    if METADATA in metadata:
        stated = json.loads(metadata[METADATA]).get("prediction")
        return spelled_prediction(stated, str(path)), "its metadata say it"
    if "modelspec.prediction_type" in metadata:
        stated = metadata["modelspec.prediction_type"]
        return spelled_prediction(stated, f"{path}: modelspec.prediction_type"), "its modelspec.prediction_type"
    if "v_pred" in tensors:
        return "v_prediction", "it has the marker 'v_pred'"
    beside = prediction_beside(path)
    if beside is not None:
        return beside
    architecture = metadata.get("modelspec.architecture", "")
    if architecture.startswith("stable-diffusion-v2"):  # "stable-diffusion-v2-512" or "stable-diffusion-v2-768-v"
        return ("v_prediction" if architecture.endswith("-v") else "epsilon"), "its modelspec.architecture"
    if family.prediction is None:
        return None, "neither shapes nor metadata nor a configuration beside it say it"
    return family.prediction, f"as {family.title} does"


def prediction_beside(path: Path) -> tuple[Prediction, str] | None:
    """Return what a configuration beside a single file says: a scheduler_config.json, or the original .yaml.

    Of the yaml only the line with `parameterization` is read; without one it is the noise, as in CompVis' code.
    """
    for file in (path.with_suffix(".scheduler_config.json"), path.parent / "scheduler_config.json"):
        if file.is_file():
            return spelled_prediction(read_json(file).get("prediction_type", "epsilon"), str(file)), file.name
    yaml = path.with_suffix(".yaml")
    if not yaml.is_file():
        return None
    try:
        with yaml.open(encoding="utf-8") as stream:
            text = stream.read(1024 * 1024)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{yaml}: cannot be read: {error}") from error
    line = re.search(r"^\s*parameterization:\s*[\"']?(\w+)", text, re.MULTILINE)
    return spelled_prediction(line.group(1) if line else "eps", str(yaml)), yaml.name


def scheduler_of(
    scheduler: Mapping[str, Any], prediction: Prediction | None, *, zero_terminal_snr: bool
) -> dict[str, Any]:
    """Return the scheduler's configuration with what is known of this checkpoint."""
    stated = {**scheduler, "prediction_type": prediction}
    if not zero_terminal_snr:
        return stated
    # A schedule that ends in pure noise has to start there: Lin et al. 2023, section 3.3.
    return {**stated, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
