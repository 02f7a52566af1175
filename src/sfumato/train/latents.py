"""Latents of a pool of pictures, encoded once: what a UNet is trained on."""

import hashlib
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfumato.nn.autoencoder import Autoencoder
from sfumato.train.config import TrainConfig
from sfumato.train.data import Samples
from sfumato.train.device import autocast

log = logging.getLogger(__name__)

CHUNK = 32  # pictures encoded at a time


def cached_latents(
    autoencoder: Autoencoder, samples: Samples, config: TrainConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latent of every sample, unscaled, [N, C, h, w] float16 on the CPU.

    Kept in the run's folder under a name that depends on the encoder's weights, the data and the precision, so that a
    resumed run reads them.
    """
    folder = Path(config.run.output)
    path = folder / f"latents-{_key(autoencoder, config)}.safetensors"
    if path.is_file():
        held = load_file(path)
        return held["mean"], held["std"]
    means, stds = [], []
    for first in range(0, samples.length, CHUNK):
        pixels = samples.pictures(range(first, min(first + CHUNK, samples.length)))
        with torch.inference_mode(), autocast(config.run, device):
            posterior = autoencoder.encode(pixels.to(device, memory_format=torch.channels_last))
        means.append(posterior.mean.half().cpu())
        stds.append(posterior.std.half().cpu())
        if first % (CHUNK * 64) == 0:
            log.info("Encoded %d of %d pictures.", first, samples.length)
    held = {"mean": torch.cat(means).contiguous(), "std": torch.cat(stds).contiguous()}
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".writing")
    save_file(held, aside)
    aside.rename(path)
    return held["mean"], held["std"]


def _key(autoencoder: Autoencoder, config: TrainConfig) -> str:
    digest = hashlib.sha256(repr((config.data, config.run.precision)).encode())
    for name, value in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
