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
from sfumato.train.ahead import ahead, count_workers, in_chunks
from sfumato.train.config import TrainConfig
from sfumato.train.data import Samples
from sfumato.train.data.buckets import Size
from sfumato.train.device import autocast

log = logging.getLogger(__name__)

CHUNK = 32  # pictures encoded at a time
PIXELS = 256 * 128 * 128  # of them, where they are so small that a device would wait


Held = dict[str, Tensor]
"""Means and standard deviations of the latents of distinct pictures, by `_name`."""


@dataclass(frozen=True)
class Latents:
    """Mean and standard deviation of the latent of each sample, float16 on the CPU, those of a bucket together.

    `rows[i]` is the bucket of sample i and its row among the [N, C, h, w] there. Where pictures are mirrored, the
    second half of a bucket's rows are those of the mirrored pictures: a mirrored latent is not the latent of the
    mirrored picture. `scale` is the autoencoder's scaling factor.
    """

    held: Held
    rows: Sequence[tuple[Size, int]]
    scale: float

    def shape(self, index: int) -> torch.Size:
        """[C, h, w] of a sample."""
        return self.held[_name("mean", self.rows[index][0])].shape[1:]

    def draw(self, indices: Sequence[int], noise: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Scaled latents of samples of one bucket for standard normal noise, [B, C, h, w] float32; some `mirrored`."""
        buckets, rows = zip(*(self.rows[index] for index in indices), strict=True)
        assert len(set(buckets)) == 1, "a batch has one size"
        mean, std = (self.held[_name(what, buckets[0])] for what in ("mean", "std"))
        at = torch.tensor(rows)
        if mirrored is not None:
            at = at + mirrored * (len(mean) // 2)
        return (mean[at].float() + std[at].float() * noise) * self.scale


def _name(what: str, bucket: Size) -> str:
    return f"{what}.{bucket[0]}x{bucket[1]}"


def cached_latents(
    autoencoder: Autoencoder, samples: Samples, count: int, config: TrainConfig, device: torch.device
) -> Latents:
    """The latents of samples number 0 to `count` - 1; a picture that several of them show is encoded once.

    Kept in the run's folder under a name that depends on the encoder's weights, the pictures and the precision, so that
    a resumed run reads them.
    """
    firsts = [samples.first_alike(index) for index in range(count)]
    distinct: dict[Size, list[int]] = {}
    for index in sorted(set(firsts)):
        distinct.setdefault(samples.bucket(index), []).append(index)
    folder = Path(config.run.output)
    path = folder / f"latents-{_key(autoencoder, samples, config)}.safetensors"
    if path.is_file():
        held = load_file(path)
    else:
        held = {}
        for bucket, indices in distinct.items():
            means, stds = _encoded(autoencoder, samples, indices, config, device)
            held |= {_name("mean", bucket): means, _name("std", bucket): stds}
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".writing")
        save_file(held, aside)
        aside.rename(path)
    place = {index: (bucket, at) for bucket, indices in distinct.items() for at, index in enumerate(indices)}
    return Latents(held, [place[first] for first in firsts], autoencoder.config.scaling_factor)


def refuse_varying(samples: Samples) -> None:
    """Raises ConfigError for samples that are cut anew each time: neither they nor their latents can be kept."""
    if samples.varies:
        raise ConfigError("random_crop cuts pictures anew each time, but latents are encoded once; switch it off.")


def _encoded(
    autoencoder: Autoencoder, samples: Samples, indices: Sequence[int], config: TrainConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    means, stds = [], []
    width, height = samples.bucket(indices[0])
    size = CHUNK if device.type == "cpu" else max(CHUNK, PIXELS // (width * height))
    chunks = in_chunks(indices, size)
    workers = 0 if samples.on_device else count_workers(config.run, device)
    for mirrored in (False, True) if config.data.mirror else (False,):
        for number, pixels in enumerate(ahead(samples.in_bucket, chunks, workers)):
            pixels = pixels.flip(-1) if mirrored else pixels
            with torch.inference_mode(), autocast(config.run, device):
                posterior = autoencoder.encode(pixels.to(device, memory_format=torch.channels_last))
            means.append(posterior.mean.half().cpu())
            stds.append(posterior.std.half().cpu())
            if number % 64 == 0:
                log.info("Encoded %d of %d pictures.", number * size, len(indices))
    return torch.cat(means).contiguous(), torch.cat(stds).contiguous()


def _key(autoencoder: Autoencoder, samples: Samples, config: TrainConfig) -> str:
    digest = hashlib.sha256(repr((config.data, config.run.precision)).encode())
    digest.update(samples.identity.encode())
    for name, value in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
