"""Training an inpainting model: a UNet that also sees a mask and what is around it, from one that sees neither.

Rombach et al. 2022, section 4.5 and the released inpainting checkpoints: nine channels are the noised latent, the mask
(1 = repaint) and the latent of the picture with grey where it is masked. The five new ones begin at zero, so that the
network first predicts what it did.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.model import Model
from sfumato.nn.lora import Adapters, Target, create
from sfumato.nn.unet import UNet
from sfumato.nn.widened import widened
from sfumato.operations import inpainting_condition, nearest_mask
from sfumato.scenes.scene import Scene
from sfumato.text.encode import Conditioning
from sfumato.train.config import TrainConfig, build
from sfumato.train.denoising import Batch, Denoising
from sfumato.train.device import autocast
from sfumato.train.foundation import Foundation, whole_model
from sfumato.train.lora import read_settings as lora_settings
from sfumato.train.lora import targets_of
from sfumato.train.masks import MASKS, random_mask
from sfumato.train.plan import Pass
from sfumato.train.things import mask_of, thing_alone
from sfumato.weights.companion import open_companion
from sfumato.weights.companion_save import save_companion
from sfumato.weights.component_files import COMPANION_FILE
from sfumato.weights.families import inpainting_family
from sfumato.weights.lora_names import UNET
from sfumato.weights.save import save_folder

MASKED = 20  # purpose of the keyed generator of the masked picture's posterior
ALONE = 23  # purpose of the keyed generator that chooses the samples of which one thing is masked
SHEET_MASKS = 1 << 40  # where the numbers of a sheet's masks begin, far from any sample's


@dataclass(frozen=True, kw_only=True)
class InpaintingConfig:
    """`things` is the share of pictures of the drawn world in which one thing is masked, and told alone. Of the others
    `whole` is the share that is masked all over, which teaches to draw from words alone, and each shape of `shapes` has
    an equal share of the rest.
    """

    things: float = 0.0
    whole: float = 0.25
    shapes: tuple[str, ...] = tuple(MASKS)


@dataclass(frozen=True)
class Masked:
    """How a batch is masked: masks [B, 1, H, W], true = repaint, and noise [B, C, h, w] of what is encoded of the rest,
    or a zero for none.

    `pixels` [B, 3, H, W] are the pictures; None where they are on the device already.
    """

    masks: Tensor
    noise: Tensor
    pixels: Tensor | None = None


class InpaintingTask(Denoising):
    """The recipe. `start.model` names the model; one that inpaints already is trained further.

    `start.companion`, if given, is the file of a companion that is trained further, for this model.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.settings = read_settings(config)
        self.targets = read_targets(config)
        self.adapters: Adapters | None = None
        super().__init__(config)
        if self.adapters is None:
            self.base.unet.requires_grad_(True)
        else:
            self.adapters.attach(self.base.unet.requires_grad_(False))
            self.base.unet.conv_in.requires_grad_(True)

    def prepared(self, base: Foundation) -> Foundation:
        model = self.plain = whole_model(base)
        beside = "[lora]" if self.targets else "start.companion" if "companion" in self.config.start else ""
        if beside and model.family.inpainting:
            raise ConfigError(f"{model.name} inpaints already; {beside} is for a companion of one that does not.")
        unet = base.unet if model.family.inpainting else widened(base.unet)
        if "companion" in self.config.start:
            self.adapters = self._continued(Path(str(self.config.start["companion"])), model, unet)
        elif self.targets:
            made = create(unet, self.targets, seed=self.config.run.seed)
            self.adapters = Adapters({path: each for path, each in made.items() if path != "conv_in"})
            if not len(self.adapters):
                raise ConfigError("lora.unet names the first layer alone, which is trained whole; name others.")
        model = replace(model, unet=unet, family=inpainting_family(model.family), files={}, hash_files=None)
        return replace(base, unet=unet, model=model)

    @torch.no_grad()
    def _continued(self, path: Path, plain: Model, wide: UNet) -> Adapters:
        """A companion's low-rank changes, whichever UNet it was trained beside; the widened one takes its first layer.

        Raises ModelFileError, and WeightsError for one that does not fit.
        """
        found = open_companion(path, plain.unet)
        weight, bias = found.first_layer(wide)
        assert wide.conv_in.bias is not None
        wide.conv_in.weight.copy_(weight)
        wide.conv_in.bias.copy_(bias)
        return found.changes(plain.unet).low_rank().float().to(self.device).requires_grad_(True)

    @property
    def networks(self) -> dict[str, nn.Module]:
        if self.adapters is None:
            return {"unet": self.base.unet}
        return {"adapters": self.adapters, "conv_in": self.base.unet.conv_in}

    def draw(self, part: Pass) -> Batch:
        batch = super().draw(part)
        masked = self._masked(batch.indices, part.numbers, part.normal(MASKED, batch.clean.shape[1:]))
        for at, (index, number) in enumerate(zip(batch.indices, part.numbers, strict=True)):
            alone = self._alone(index, number)
            if alone is not None:
                masked.masks[at] = mask_of(alone[1], masked.masks.shape[-1], self.config.run.seed, number) >= 0.5
        return replace(batch, shown=masked)

    def _masked(self, indices: Sequence[int], numbers: Sequence[int], noise: Tensor) -> Masked:
        """Random masks of samples of the data that have these numbers in the run."""
        size = self.samples.bucket(indices[0])
        masks = [random_mask(self.config.run.seed, number, size, self.shape) for number in numbers]
        pixels = None if self.samples.on_device else self.samples.in_bucket(indices)
        return Masked(torch.stack(masks) >= 0.5, noise, pixels)

    def _alone(self, index: int, number: int) -> tuple[Scene, tuple[float, float, float, float]] | None:
        """The scene of a sample with the one thing of it that is masked, and its box; None where none is."""
        seed = self.config.run.seed
        if self.world is None or np.random.default_rng([seed, number, ALONE]).uniform() >= self.settings.things:
            return None
        return thing_alone(self.world.scenes([index])[0], seed, number)

    def captions(self, batch: Batch) -> list[str]:
        said = super().captions(batch)
        for at, (index, number) in enumerate(zip(batch.indices, batch.part.numbers, strict=True)):
            alone = self._alone(index, number)
            if alone is not None and self.world is not None:
                said[at] = self.world.described([alone[0]], [number])[0].text
        return said

    def extra_input(self, batch: Batch) -> Tensor:
        shown = batch.shown  # none in validation, where no thing is told alone
        if shown is None:
            shown = self._masked(batch.indices, batch.part.numbers, batch.part.normal(MASKED, batch.clean.shape[1:]))
        return self._seen(batch.indices, shown, batch.mirrored)

    def sheet_input(self, indices: Sequence[int]) -> Tensor:
        numbers = range(SHEET_MASKS, SHEET_MASKS + len(indices))
        return self._seen(indices, self._masked(indices, numbers, torch.zeros(())), None)

    @torch.no_grad()
    def _seen(self, indices: Sequence[int], masked: Masked, mirrored: Tensor | None) -> Tensor:
        """Mask and masked latent of samples, [B, 1 + C, h, w], as inference makes them."""
        autoencoder = self.base.autoencoder
        pixels = self.samples.in_bucket(indices) if masked.pixels is None else masked.pixels.to(self.device)
        if mirrored is not None:
            pixels = torch.where(mirrored.to(self.device)[:, None, None, None], pixels.flip(-1), pixels)
        masks = masked.masks.to(self.device)
        with autocast(self.config.run, self.device):
            posterior = autoencoder.encode((pixels * ~masks).contiguous(memory_format=torch.channels_last))
        noise = masked.noise.to(self.device)
        left = (posterior.mean.float() + posterior.std.float() * noise) * autoencoder.config.scaling_factor
        small = nearest_mask(masks.float(), (left.shape[-2], left.shape[-1]))
        concat = inpainting_condition(Conditioning(left), small, left).at(0.0).concat
        assert concat is not None
        return concat

    def shape(self, uniform: float) -> str:
        """The kind of mask for a number in [0, 1): "" is the whole picture."""
        if uniform < self.settings.whole:
            return ""
        place = (uniform - self.settings.whole) / (1 - self.settings.whole) * len(self.settings.shapes)
        return self.settings.shapes[min(int(place), len(self.settings.shapes) - 1)]

    def export(self, folder: Path) -> None:
        """Writes the whole model as a diffusers folder of an inpainting pipeline; or, with [lora], what makes the
        model that the run started from inpaint: the file that lies beside its networks.
        """
        if self.adapters is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save_companion(folder / COMPANION_FILE, self.adapters, self.base.unet.conv_in, self.plain, overwrite=True)
            return
        assert self.base.model is not None
        save_folder(replace(self.base.model, scheduler=self.objective.described), folder, overwrite=True)


def read_targets(config: TrainConfig) -> list[Target]:
    """The layers that [lora] names, none without it. Raises ConfigError for what a companion has not."""
    if not config.lora:
        return []
    if "companion" in config.start:
        raise ConfigError("start.companion has its own layers, ranks and alphas; leave [lora] out.")
    others = sorted(config.lora.keys() - {"rank", "alpha", "unet"})
    if others or "lora" in config.start:
        said = f"lora.{others[0]}" if others else "start.lora"
        raise ConfigError(
            f"{said} is given, but a companion for inpainting changes a UNet from its start; leave it out."
        )
    return targets_of(lora_settings(config), UNET)


def read_settings(config: TrainConfig) -> InpaintingConfig:
    """The section [inpainting]. Raises ConfigError for what cannot be, before any work."""
    settings = build(InpaintingConfig, config.inpainting, "inpainting")
    if "model" not in config.start:
        raise ConfigError('start.model must name the model to teach inpainting: a path, a name, or "embedded".')
    for name in ("whole", "things"):
        share = getattr(settings, name)
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise ConfigError(f"inpainting.{name} is {share}; it is a share from 0 to 1.")
    if settings.things and config.data.source != "world":
        raise ConfigError(
            "inpainting.things needs data.source = 'world', which knows where its things are; leave it out."
        )
    wrong = [shape for shape in settings.shapes if shape not in MASKS]
    if wrong or not settings.shapes:
        raise ConfigError(f"inpainting.shapes are of {', '.join(MASKS)}; found {wrong or 'none'}.")
    return settings
