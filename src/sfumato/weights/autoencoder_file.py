"""An autoencoder alone: a folder or a file, in diffusers' names, its older names, or a single file's."""

from pathlib import Path

from sfumato.errors import ModelFileError, WeightsError
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.weights.build import Part, check_parts, shapes_of
from sfumato.weights.component_files import UNET_STEM, component_variant, find_weights
from sfumato.weights.files import TensorFile, open_file, read_json
from sfumato.weights.ldm import AUTOENCODER_PREFIX, UNET_PREFIX, autoencoder_naming, old_autoencoder_naming
from sfumato.weights.naming import Naming, identity, prefixed
from sfumato.weights.network_config import network_config, network_of
from sfumato.weights.opened import Component
from sfumato.weights.recognise import recognise

# Tensors of an autoencoder's training: its losses, averaged copies and counters.
TRAINING = ("loss.", "model_ema.", "logvar", "global_step")


def open_autoencoder(path: Path, like: AutoencoderConfig, variant: str | None = None) -> Component:
    """Open an autoencoder to be used in place of one with the configuration `like`, without reading a weight.

    A folder brings its own configuration; a file is read by `like`, as it says nothing about itself. Raises
    WeightsError if it is no autoencoder, or one for other latents.
    """
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        if not (folder / "config.json").is_file():
            raise ModelFileError(f"{path}: has no config.json; an autoencoder's folder has one, and its weights.")
        config = read_autoencoder_config(folder / "config.json")
        check_latents(path, config, like)
        tensors = open_file(find_weights(folder, UNET_STEM, component_variant(folder, UNET_STEM, variant)))
    else:
        config, tensors = like, open_file(path)
    return autoencoder_component(path, config, tensors)


def read_autoencoder_config(path: Path) -> AutoencoderConfig:
    """Read an autoencoder's config.json; raises ModelFileError if it is another network's."""
    stated = read_json(path)
    kind = stated.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise ModelFileError(f"{path}: describes a {kind}; an AutoencoderKL was expected.")
    return network_config(AutoencoderConfig.from_json, stated, path)


def check_latents(path: Path, config: AutoencoderConfig, like: AutoencoderConfig) -> None:
    """Raise WeightsError if an autoencoder has another latent space than the model."""
    for name in ("latent_channels", "scaling_factor", "stride"):
        found, wanted = getattr(config, name), getattr(like, name)
        if found != wanted:
            raise WeightsError(
                f"{path}: an autoencoder for other latents: its {name.replace('_', ' ')} is {found}, the model's "
                f"{wanted}. An autoencoder of SD 1.x or 2.x does not fit SDXL, nor the other way round."
            )


def autoencoder_component(path: Path, config: AutoencoderConfig, tensors: TensorFile) -> Component:
    """Compare an autoencoder's file, in any naming, with its configuration. Raises WeightsError if they differ."""
    network = network_of(lambda: Autoencoder(config), path)
    naming, prefix = choose_naming(path, config, list(network.state_dict()), tensors)
    part = Part("autoencoder", network, naming)
    known = {rule.theirs for rule in naming}
    mine = [name for name in tensors if name.startswith(prefix) and not name.removeprefix(prefix).startswith(TRAINING)]
    check_parts(path, "this autoencoder", [part], tensors, [name for name in mine if name not in known])
    return Component(part, tensors)


def choose_naming(path: Path, config: AutoencoderConfig, names: list[str], tensors: TensorFile) -> tuple[Naming, str]:
    """Return the rules that fit a file's names, and their prefix."""
    for prefix in ("", AUTOENCODER_PREFIX, "vae."):
        if prefix + "encoder.down.0.block.0.norm1.weight" in tensors:
            return prefixed(autoencoder_naming(config, names), prefix), prefix
        if prefix + "encoder.down_blocks.0.resnets.0.norm1.weight" in tensors:
            old = prefix + "encoder.mid_block.attentions.0.query.weight" in tensors
            return prefixed(old_autoencoder_naming(names) if old else identity(names), prefix), prefix
    looks = recognise(shapes_of(tensors))
    whole = " with a UNet" if any(name.startswith(UNET_PREFIX) for name in tensors) else ""
    raise WeightsError(
        f"{path} is not an autoencoder: it looks like {looks.what}{whole} ({looks.reason}). "
        "Name a VAE's file or folder."
    )
