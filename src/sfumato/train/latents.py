"""Latents of a set of pictures, encoded once: what a UNet is trained on."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.nn.autoencoder import Autoencoder
from sfumato.train.config import TrainConfig
from sfumato.train.data import Samples
from sfumato.train.device import autocast

log = logging.getLogger(__name__)

CHUNK = 32  # pictures encoded at a time


@dataclass(frozen=True)
class Latents:
    """Mean and standard deviation of the scaled latent of each sample, [N, C, h, w] float16 on the CPU.

    Where pictures are mirrored, the second half are those of the mirrored pictures: a mirrored latent is not the latent
    of the mirrored picture.
    """

    mean: Tensor
    std: Tensor
    scale: float

    def draw(self, indices: Sequence[int], noise: Tensor) -> Tensor:
        """Latents of some of the samples for standard normal noise, [B, C, h, w] float32."""
        return (self.mean[indices].float() + self.std[indices].float() * noise) * self.scale


def cached_latents(
    autoencoder: Autoencoder, samples: Samples, count: int, config: TrainConfig, device: torch.device
) -> Latents:
    """The latents of samples number 0 to `count` - 1; a picture that several of them show is encoded once.

    Kept in the run's folder under a name that depends on the encoder's weights, the pictures and the precision, so that
    a resumed run reads them. Raises ConfigError for samples that are cut anew each time.
    """
    if samples.varies:
        raise ConfigError("random_crop cuts pictures anew each time, but latents are encoded once; switch it off.")
    firsts = [samples.first_alike(index) for index in range(count)]
    distinct = sorted(set(firsts))
    folder = Path(config.run.output)
    path = folder / f"latents-{_key(autoencoder, samples, config)}.safetensors"
    if path.is_file():
        held = load_file(path)
    else:
        held = _encoded(autoencoder, samples, distinct, config, device)
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".writing")
        save_file(held, aside)
        aside.rename(path)
    if len(distinct) < count:
        place = {first: at for at, first in enumerate(distinct)}
        rows = torch.tensor([place[first] for first in firsts])
        rows = torch.cat([rows, rows + len(distinct)]) if config.data.mirror else rows
        held = {name: value[rows] for name, value in held.items()}
    return Latents(held["mean"], held["std"], autoencoder.config.scaling_factor)


def _encoded(
    autoencoder: Autoencoder, samples: Samples, indices: Sequence[int], config: TrainConfig, device: torch.device
) -> dict[str, Tensor]:
    means, stds = [], []
    for mirrored in (False, True) if config.data.mirror else (False,):
        for first in range(0, len(indices), CHUNK):
            pixels = samples.pictures(indices[first : first + CHUNK])
            pixels = pixels.flip(-1) if mirrored else pixels
            with torch.inference_mode(), autocast(config.run, device):
                posterior = autoencoder.encode(pixels.to(device, memory_format=torch.channels_last))
            means.append(posterior.mean.half().cpu())
            stds.append(posterior.std.half().cpu())
            if first % (CHUNK * 64) == 0:
                log.info("Encoded %d of %d pictures.", first, len(indices))
    return {"mean": torch.cat(means).contiguous(), "std": torch.cat(stds).contiguous()}


def _key(autoencoder: Autoencoder, samples: Samples, config: TrainConfig) -> str:
    digest = hashlib.sha256(repr((config.data, config.run.precision)).encode())
    digest.update(samples.identity.encode())
    for name, value in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
