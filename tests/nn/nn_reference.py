"""Networks of the reference implementations with random weights, and ours with the same weights."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from random_networks import randomize as randomize
from random_networks import relative_error as relative_error
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig

CONFIGS = Path(__file__).parent / "configs"
TOLERANCE = 1e-5  # of a whole tensor in float32: sums in another order, over tens of layers; usually 1e-6


def published(name: str) -> dict[str, Any]:
    """A config.json as it is published with the model."""
    return json.loads((CONFIGS / f"{name}.json").read_text())


def of_reference(network: nn.Module) -> dict[str, Tensor]:
    """The state dict under the names of published files: transformers 5 leaves out `text_model.` in one class."""
    state = network.state_dict()
    if isinstance(network, CLIPTextModel):
        return {name if name.startswith("text_model.") else f"text_model.{name}": state[name] for name in state}
    return state


def unets(config: dict[str, Any]) -> tuple[UNet2DConditionModel, UNet]:
    """The reference's UNet and ours, sharing their weights."""
    return paired(uninitialized(UNet2DConditionModel, config), UNet, UNetConfig.from_json(config))


def autoencoders(config: dict[str, Any]) -> tuple[AutoencoderKL, Autoencoder]:
    """The reference's autoencoder and ours, sharing their weights."""
    return paired(uninitialized(AutoencoderKL, config), Autoencoder, AutoencoderConfig.from_json(config))


def uninitialized(kind: Any, config: dict[str, Any]) -> Any:
    """A network of diffusers whose weights are not yet set: setting them twice takes minutes for the largest."""
    with torch.device("meta"):
        network = kind.from_config(config)
    return network.to_empty(device="cpu")


def reference_text_encoder(config: dict[str, Any]) -> nn.Module:
    """The reference's text encoder, with a projection if its architecture says so."""
    projects = config["architectures"] == ["CLIPTextModelWithProjection"]
    network = (CLIPTextModelWithProjection if projects else CLIPTextModel)(CLIPTextConfig(**config))
    return network.float()  # published configs name the precision of their file, float16 for some


def text_encoders(config: dict[str, Any]) -> tuple[Any, TextEncoder]:
    """The reference's text encoder and ours, sharing their weights."""
    return paired(reference_text_encoder(config), TextEncoder, TextEncoderConfig.from_json(config))


def paired(reference: Any, kind: Any, config: Any) -> tuple[Any, Any]:
    """`reference` with random weights, and a network of ours on the same storage."""
    randomize(reference)
    with torch.device("meta"):
        ours = kind(config)
    ours.load_state_dict(of_reference(reference), strict=True, assign=True)
    return reference.eval(), ours.eval()


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """The gradients of a network's parameters, taken from it."""
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad()
    assert all(gradient is not None for gradient in found.values())
    return found
