"""Training an inpainting model: a UNet that also sees a mask and what is around it, from one that sees neither.

Rombach et al. 2022, section 4.5 and the released inpainting checkpoints: nine channels are the noised latent, the mask
(1 = repaint) and the latent of the picture with grey where it is masked. The five new ones begin at zero, so that the
network first predicts what it did.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.nn.widened import widened
from sfumato.operations import inpainting_condition, nearest_mask
from sfumato.text.encode import Conditioning
from sfumato.train.config import TrainConfig, build
from sfumato.train.denoising import Batch, Denoising
from sfumato.train.device import autocast
from sfumato.train.foundation import Foundation, whole_model
from sfumato.train.masks import MASKS, random_mask
from sfumato.weights.families import inpainting_family
from sfumato.weights.save import save_folder

MASKED = 20  # purpose of the keyed generator of the masked picture's posterior
SHEET_MASKS = 1 << 40  # where the numbers of a sheet's masks begin, far from any sample's


@dataclass(frozen=True, kw_only=True)
class InpaintingConfig:
    """`whole` is the share of pictures that are masked all over, which teaches to draw from words alone; of the others
    each shape of `shapes` has an equal share.
    """

    whole: float = 0.25
    shapes: tuple[str, ...] = tuple(MASKS)


class InpaintingTask(Denoising):
    """The recipe. `start.model` names the model; one that inpaints already is trained further."""

    def __init__(self, config: TrainConfig) -> None:
        self.settings = read_settings(config)
        super().__init__(config)
        self.network = self.base.unet.requires_grad_(True)

    def prepared(self, base: Foundation) -> Foundation:
        model = whole_model(base)
        unet = base.unet if model.family.inpainting else widened(base.unet)
        model = replace(model, unet=unet, family=inpainting_family(model.family), files={}, hash_files=None)
        return replace(base, unet=unet, model=model)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"unet": self.network}

    def extra_input(self, batch: Batch) -> Tensor:
        pixels = self.samples.in_bucket(batch.indices)
        if batch.mirrored is not None:
            pixels = torch.where(batch.mirrored[:, None, None, None], pixels.flip(-1), pixels)
        return self._seen(pixels, batch.part.numbers, batch.part.normal(MASKED, batch.clean.shape[1:]))

    def sheet_input(self, indices: Sequence[int]) -> Tensor:
        numbers = range(SHEET_MASKS, SHEET_MASKS + len(indices))
        return self._seen(self.samples.in_bucket(indices), numbers, torch.zeros(()))

    @torch.no_grad()
    def _seen(self, pixels: Tensor, numbers: Sequence[int], noise: Tensor) -> Tensor:
        """Mask and masked latent of pictures [B, 3, H, W] that have these numbers, [B, 1 + C, h, w]; the noise is that
        of the posterior. As inference makes them.
        """
        size = (pixels.shape[-1], pixels.shape[-2])
        autoencoder = self.base.autoencoder
        masks = torch.stack([random_mask(self.config.run.seed, number, size, self.shape) for number in numbers])
        with autocast(self.config.run, self.device):
            posterior = autoencoder.encode((pixels * (masks < 0.5)).to(self.device))
        noise = noise.to(self.device)
        masked = (posterior.mean.float() + posterior.std.float() * noise) * autoencoder.config.scaling_factor
        small = nearest_mask(masks, (masked.shape[-2], masked.shape[-1])).to(self.device)
        concat = inpainting_condition(Conditioning(masked), small, masked).at(0.0).concat
        assert concat is not None
        return concat

    def shape(self, uniform: float) -> str:
        """The kind of mask for a number in [0, 1): "" is the whole picture."""
        if uniform < self.settings.whole:
            return ""
        place = (uniform - self.settings.whole) / (1 - self.settings.whole) * len(self.settings.shapes)
        return self.settings.shapes[min(int(place), len(self.settings.shapes) - 1)]

    def export(self, folder: Path) -> None:
        """Writes the whole model as a diffusers folder of an inpainting pipeline."""
        assert self.base.model is not None
        save_folder(replace(self.base.model, scheduler=self.objective.described), folder, overwrite=True)


def read_settings(config: TrainConfig) -> InpaintingConfig:
    """The section [inpainting]. Raises ConfigError for what cannot be, before any work."""
    settings = build(InpaintingConfig, config.inpainting, "inpainting")
    if "model" not in config.start:
        raise ConfigError('start.model must name the model to teach inpainting: a path, a name, or "embedded".')
    if not (math.isfinite(settings.whole) and 0 <= settings.whole <= 1):
        raise ConfigError(f"inpainting.whole is {settings.whole}; it is a share from 0 to 1.")
    wrong = [shape for shape in settings.shapes if shape not in MASKS]
    if wrong or not settings.shapes:
        raise ConfigError(f"inpainting.shapes are of {', '.join(MASKS)}; found {wrong or 'none'}.")
    return settings
