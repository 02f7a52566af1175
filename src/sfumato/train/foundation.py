"""What a denoising run stands on: a whole model, or an autoencoder and a text encoder that were trained before."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from sfumato.errors import ConfigError
from sfumato.model import Model
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.text.encode import SD1, Conditioning, TextStack
from sfumato.text.tokenizer import Tokenizer
from sfumato.train.config import TrainConfig
from sfumato.train.device import channels_last, pick_device
from sfumato.train.objective import SCHEDULER, DenoisingLoss, Objective
from sfumato.train.parts import read_part, start_folder
from sfumato.train.plan import seeded

N = TypeVar("N", bound=torch.nn.Module)


@dataclass(frozen=True)
class Foundation:
    """The networks of a run on its device, all frozen, and its objective. `model` where it is whole.

    Captions are cut to one chunk of the text encoder's length, as in every training of Stable Diffusion.
    """

    unet: UNet
    autoencoder: Autoencoder
    text: TextStack
    objective: Objective
    model: Model | None = None

    def sized(self, told: Conditioning, size: tuple[int, int]) -> Conditioning:
        """Encoded captions with what the UNet is told of the size of their pictures, (width, height) in pixels."""
        return self.text.sized(told, width=size[0], height=size[1])


def foundation(config: TrainConfig, loss: DenoisingLoss) -> Foundation:
    """The foundation that `start` names: `start.model`, or `start.autoencoder` and `start.text`.

    In the latter case the UNet is that of `start.unet`, or a new one of the shape of `network`. Raises ConfigError.
    """
    if "model" in config.start:
        return _whole(config, loss)
    device = pick_device(config.run)
    unet = channels_last(_frozen(_unet(config), device))
    folder = start_folder(config, "autoencoder") / "vae"
    autoencoder = read_part(folder, Autoencoder, AutoencoderConfig.from_json)
    text = start_folder(config, "text")
    encoder = read_part(text / "text_encoder", TextEncoder, TextEncoderConfig.from_json)
    tokenizer = Tokenizer.from_folder(text / "tokenizer")
    stack = TextStack((tokenizer,), (_frozen(encoder, device),), replace(SD1, limit=1))
    objective = Objective(loss, loss.prediction or "v_prediction", SCHEDULER)
    return Foundation(unet, channels_last(_frozen(autoencoder, device)), stack, objective)


def _whole(config: TrainConfig, loss: DenoisingLoss) -> Foundation:
    from sfumato.weights.load import load

    others = sorted(config.start.keys() & {"autoencoder", "text", "unet"})
    if others or config.network:
        said = f"start.{others[0]}" if others else "[network]"
        raise ConfigError(f"start.model names a whole model; leave {said} out.")
    device = pick_device(config.run)
    model = load(_model_name(config), dtype=torch.float32, device=device)
    if loss.prediction and loss.prediction != model.prediction:
        raise ConfigError(
            f"loss.prediction is {loss.prediction}, but {model.name} predicts {model.prediction}; leave it out."
        )
    unet = channels_last(model.unet)
    text = replace(model.text, rules=replace(model.text.rules, limit=1))
    return Foundation(unet, model.autoencoder, text, Objective(loss, model.prediction, model.scheduler), model)


def _model_name(config: TrainConfig) -> str | Path | None:
    """`start.model`: a path or a name; "embedded" is the model in the package."""
    name = str(config.start["model"])
    return None if name == "embedded" else name


def _unet(config: TrainConfig) -> UNet:
    if "unet" not in config.start:
        with seeded(config.run.seed):
            return UNet(UNetConfig.from_json(config.network))
    if config.network:
        raise ConfigError("A run that starts from a UNet takes its [network] from there; leave it out.")
    return read_part(start_folder(config, "unet") / "unet", UNet, UNetConfig.from_json)


def _frozen(network: N, device: torch.device) -> N:
    return network.to(device).requires_grad_(False).eval()


def whole_model(base: Foundation) -> Model:
    """The model that a run starts from. Raises ConfigError where it starts from parts."""
    if base.model is None:
        raise ConfigError('start.model must name a whole model: a path, a name, or "embedded".')
    return base.model
