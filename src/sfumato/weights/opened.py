"""A model that has been found, understood and checked against its networks, before a weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfumato.diffusion.denoiser import Prediction
from sfumato.errors import ConfigError, ModelFileError, WeightsError
from sfumato.model import Family
from sfumato.nn.autoencoder import AutoencoderConfig
from sfumato.nn.clip import TextEncoderConfig
from sfumato.nn.unet import UNetConfig
from sfumato.text.tokenizer import Tokenizer
from sfumato.weights.build import Part
from sfumato.weights.files import TensorFile
from sfumato.weights.naming import Rule

SPELLINGS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
    "v": "v_prediction",
    "sample": "sample",
}
# What model_index.json says beside its components, and that changes what a model draws.
INDEX_OPTIONS = ("force_zeros_for_empty_prompt", "requires_aesthetics_score", "is_cosxl_edit")


@dataclass(frozen=True)
class Component:
    """One network of a model, without weights yet, and the file that has them."""

    part: Part
    tensors: TensorFile

    @property
    def places(self) -> dict[str, tuple[Rule, int]]:
        """Where each of our tensors is in the file: the rule that has it, and its place there."""
        return {name: (rule, place) for rule in self.part.naming for place, name in enumerate(rule.ours)}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A whole model, not yet read. `text` has one or two encoders, in the order in which they are joined.

    `reason` says why this family was chosen, `notes` what was found and is not used. `prediction` is None where
    nothing tells it, `prediction_reason` what does. `options` holds what a diffusers
    model_index.json says beside its components. `companion` is the file that makes its UNet see a mask.
    """

    path: Path
    family: Family
    reason: str
    unet: Component
    autoencoder: Component
    text: tuple[Component, ...]
    tokenizers: tuple[Tokenizer, ...]
    scheduler: Mapping[str, Any]
    prediction: Prediction | None
    prediction_reason: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    companion: TensorFile | None = None

    @property
    def components(self) -> dict[str, Component]:
        """The networks by their names in a diffusers folder."""
        text = dict(zip(text_names(self.family.text), self.text, strict=True))
        return {"unet": self.unet, "vae": self.autoencoder, **text}


def text_names(kind: str) -> tuple[str, ...]:
    """Return the names of the text encoders in a diffusers folder, in the order in which they are joined."""
    if kind == "sdxl":
        return ("text_encoder", "text_encoder_2")
    return ("text_encoder_2",) if kind == "sdxl-refiner" else ("text_encoder",)


def spelled_prediction(stated: object, where: str) -> Prediction:
    """Return the prediction type that a file or a user names. Raises ConfigError naming the known ones."""
    if not isinstance(stated, str) or stated not in SPELLINGS:
        raise ConfigError(f"{where}: prediction type {stated!r} is not known; known are {', '.join(SPELLINGS)}.")
    return SPELLINGS[stated]


def check_fit(
    path: Path, unet: UNetConfig, autoencoder: AutoencoderConfig, text: tuple[TextEncoderConfig, ...]
) -> None:
    """Raise WeightsError if the networks are not of one model: widths or channels of one do not fit another."""
    width = sum(config.hidden_size for config in text)
    if width != unet.cross_attention_dim:
        raise WeightsError(
            f"{path} is mixed from different models: its UNet attends to {unet.cross_attention_dim} text features and "
            f"its text encoders give {width}; use networks of one model."
        )
    if unet.out_channels != autoencoder.latent_channels:
        raise WeightsError(
            f"{path} is mixed from different models: its UNet makes latents of {unet.out_channels} channels and its "
            f"autoencoder reads {autoencoder.latent_channels}; use networks of one model."
        )
    if unet.addition_embed_type is not None:
        sizes = 5 if len(text) == 1 else 6  # the refiner takes an aesthetic score in place of the target size
        pooled = unet.addition_width - sizes * (unet.addition_time_embed_dim or 0)
        if pooled != text[-1].projection_dim:
            raise WeightsError(
                f"{path} is mixed from different models: its UNet takes a pooled text of {pooled} features and its "
                f"text encoder gives {text[-1].projection_dim}; use networks of one model."
            )


def with_defaults(family: Family, defaults: Mapping[str, Any], path: Path) -> Family:
    """Return the family with a model's own defaults: size, steps, guidance, title, preview factors.

    Raises ModelFileError for a default that is no number of the right kind.
    """
    given = {key: defaults[key] for key in ("size", "steps", "guidance", "title") if key in defaults}
    for key, value in given.items():
        if key == "title":
            right = isinstance(value, str)
        else:
            right = isinstance(value, int if key != "guidance" else (int, float)) and not isinstance(value, bool)
            right = right and value > 0
        if not right:
            raise ModelFileError(f"{path}: the default {key} = {value!r} should be a number above 0, a title a text.")
    if "preview" in defaults:
        given["preview"] = preview_factors(defaults["preview"], family.latent_channels, path)
    return replace(family, **given)


def preview_factors(rows: object, channels: int, path: Path) -> tuple[tuple[float, ...], ...]:
    """Return preview factors as a Family has them. Raises ModelFileError unless there are 3 for each channel."""
    if isinstance(rows, list) and len(rows) in (channels, channels + 1):
        factors = tuple(tuple(row) for row in rows if isinstance(row, list) and len(row) == 3)
        numbers = all(isinstance(value, int | float) for row in factors for value in row)
        if len(factors) == len(rows) and numbers:
            return factors
    raise ModelFileError(f"{path}: preview should be {channels} or {channels + 1} rows of 3 numbers.")
