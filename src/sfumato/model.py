"""A model: the networks of one checkpoint and what belongs to them, as one frozen value."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sfumato.diffusion.denoiser import Lookup, Prediction
from sfumato.diffusion.denoiser import denoiser as wrap
from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.schedule import NoiseSchedule
from sfumato.nn.additions import NOTHING, UNetCall, together
from sfumato.nn.autoencoder import Autoencoder
from sfumato.nn.replay import Replayed
from sfumato.nn.resting import is_resting
from sfumato.nn.unet import UNet
from sfumato.request import Embedding, Lora
from sfumato.text.encode import Conditioning, TextStack

TextKind = Literal["clip", "openclip", "sdxl", "sdxl-refiner"]
"""clip: SD 1.x. openclip: SD 2.x. sdxl: both towers, joined. sdxl-refiner: the second tower alone."""

COMPANION = "inpainting"
"""What a companion is called among a model's files and hashes."""

ConditionedDenoise = Callable[[Tensor, float, Conditioning], Tensor]
"""(x [B, C, h, w], sigma, conditioning of B pictures) -> estimate of the clean latent."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the checkpoints of one kind have in common.

    `size` is the default width and height in pixels; `steps` and `guidance` are the defaults of a request;
    `inpainting` and `instructed` networks see a masked picture, or a picture, beside the latent. `prediction` is what
    the network outputs, None where every checkpoint must say it itself. `preview` has for each
    latent channel, and in a last row for all, what it adds to red, green and blue (`sfumato.preview`).
    """

    name: str
    title: str
    text: TextKind
    size: int
    steps: int = 30
    guidance: float = 7.5
    latent_channels: int = 4
    inpainting: bool = False
    instructed: bool = False
    prediction: Prediction | None = "epsilon"
    preview: tuple[tuple[float, float, float], ...] | None = None


class Companion(Protocol):
    """What a model that was not made for inpainting needs beside its networks to see a mask (`weights.companion`)."""

    @property
    def files(self) -> tuple[Path, ...]: ...

    def inpainter(self, model: "Model") -> "Model":
        """The model with a UNet that sees a mask. Raises WeightsError for a companion of another model."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The networks of a checkpoint, its noise schedule and its default way to sample.

    To need less memory, guidance asks the UNet twice where the networks are asked `apart`, and pictures of more than
    `tiled_above` pixels go through the autoencoder in tiles (None: the usual limit).

    `scheduler` and `options` are what its scheduler_config.json and model_index.json say, kept for saving; `notes`
    name what was found in the files and is not used. `loras` are merged into the networks; the text encoders know the
    words of `embeddings`; `controls` are the control networks that requests may name; `refiner` draws on, at low noise,
    where a request says from when; `companion` makes its UNet see a mask. `files` are the weight files of each
    component, LoRA and control network, and `hash_files` returns the sha256 of some of them; a model that was made in
    memory has neither.
    """

    name: str
    source: Path
    family: Family
    unet: UNet
    autoencoder: Autoencoder
    text: TextStack
    schedule: NoiseSchedule
    sampling: Sampling
    prediction: Prediction
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    hash_files: Callable[[tuple[Path, ...]], str] | None = None
    notes: tuple[str, ...] = ()
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    controls: Mapping[str, nn.Module] = field(default_factory=dict)
    refiner: "Model | None" = None
    companion: "Companion | None" = None

    apart: bool = False
    tiled_above: int | None = None

    @property
    def stride(self) -> int:
        """Pixels per latent cell, in each direction."""
        return self.autoencoder.config.stride

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.autoencoder.config.latent_channels

    @property
    def scaling_factor(self) -> float:
        """What the autoencoder's latents are multiplied by to have unit variance."""
        return self.autoencoder.config.scaling_factor

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return self.unet.conv_in.weight.device

    @property
    def spares(self) -> bool:
        """Is it asked to need less memory? Then there is none for recorded steps, or weights do not stay in place."""
        return self.apart or self.tiled_above is not None or is_resting(self.unet)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the UNet."""
        return self.unet.conv_in.weight.dtype

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each component's, LoRA's and the refiner's weights: of files, or of tensors without a file.

        Computed when first asked for, and remembered between runs for files that have not changed since.
        """
        refining = {} if self.refiner is None else self.refiner.hashes
        return {**self._own_hashes(), **{f"refiner.{name}": digest for name, digest in refining.items()}}

    def _own_hashes(self) -> dict[str, str]:
        if self.hash_files is not None:
            return {component: self.hash_files(paths) for component, paths in self.files.items()}
        networks = {"unet": self.unet, "vae": self.autoencoder}
        text = {f"text_encoder{'' if not i else f'_{i + 1}'}": each for i, each in enumerate(self.text.encoders)}
        controls = {f"control {name}": network for name, network in self.controls.items()}
        every = {**networks, **text, **controls}
        return {name: hash_tensors(network.state_dict()) for name, network in every.items()}

    @property
    def inpainter(self) -> "Model | None":
        """This model as one that sees a mask, made by its companion when first asked for; None where it has none.

        Raises what `Companion.inpainter` raises.
        """
        return None if self.companion is None else self.companion.inpainter(self)

    def with_only(self, controls: Iterable[str]) -> "Model":
        """This model with some of its control networks and without the others."""
        kept = {name: self.controls[name] for name in controls}
        if kept.keys() == self.controls.keys():
            return self
        dropped = {f"control {name}" for name in self.controls.keys() - kept.keys()}
        files = {name: paths for name, paths in self.files.items() if name not in dropped}
        return replace(self, controls=kept, files=files)

    def denoiser(self, lookup: Lookup | None = None) -> ConditionedDenoise:
        """Return network, schedule and prediction as one function of a noised latent, its level and what is wanted.

        `lookup` finds the timestep of a level (`Sampling.lookup`); by default it is interpolated in log sigma.
        """

        alone = Replayed(self.unet) if self.device.type == "cuda" and not self.spares else self.unet

        def denoise(x: Tensor, sigma: float, conditioning: Conditioning) -> Tensor:
            told = conditioning.to(self.device, self.dtype)

            def network(scaled: Tensor, timestep: Tensor) -> Tensor:
                seen = scaled.to(self.dtype)
                call = UNetCall(seen, timestep, sigma, told.context, told.pooled, told.size)
                added = together(adder.additions(call) for adder in told.adders)
                if told.concat is not None:
                    seen = torch.cat([seen, told.concat], dim=1)
                if added is NOTHING:
                    return alone(seen, timestep, told.context, told.pooled, told.size)
                return self.unet(seen, timestep, told.context, told.pooled, told.size, added)  # type: ignore[no-any-return]

            find = lookup or self.schedule.timestep
            return wrap(network, self.schedule, self.prediction, find)(x, sigma)

        return denoise

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Model":
        """Move the networks to a device and into a precision, and return this model. An fp16-shy autoencoder stays."""
        self.unet.to(device=device, dtype=dtype)
        self.text.to(device, dtype)
        for control in self.controls.values():
            control.to(device=device, dtype=dtype)
        shy = autoencoder_dtype(self.family, self.autoencoder, dtype)
        self.autoencoder.to(device=device, dtype=shy)
        if device is not None:
            self.autoencoder.to(memory_format=autoencoder_order(torch.device(device)))  # type: ignore[call-overload]
        return self


def autoencoder_dtype(family: Family, autoencoder: Autoencoder, dtype: torch.dtype | None) -> torch.dtype | None:
    """Return the precision for the autoencoder: float32 in place of float16 where it would overflow (SDXL's).

    SD 1.x and 2.x never state `force_upcast` and do not overflow, so that its default there means nothing.
    """
    shy = autoencoder.config.force_upcast and family.text in ("sdxl", "sdxl-refiner")
    return torch.float32 if dtype is torch.float16 and shy else dtype


def autoencoder_order(device: torch.device) -> torch.memory_format:
    """Return the memory order of the autoencoder's convolutions: channels last, but on CUDA.

    There PyTorch's group norm takes and gives channels first, so that each convolution would have to be turned over.
    """
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors with their names, types and shapes, as hexadecimal text."""
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
