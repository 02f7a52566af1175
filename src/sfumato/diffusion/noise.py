"""Where every random number of a picture comes from.

Each image has its own seed; what is drawn for it never depends on the batch, its place in it, the device, or how
often something else was drawn. Nothing here touches PyTorch's global generator.

keyed       the default: start noise from the seed itself, everything else from a generator keyed by
            (seed, purpose, draw), so that any draw can be made alone and in any order
sequential  one generator an image, continued from draw to draw: diffusers' order (posterior, start, steps)
philox      one emulation of CUDA's generator an image, for the start and then the steps: A1111's GPU source; what A1111
            draws elsewhere (posteriors) is keyed
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.philox import Philox
from sfumato.errors import RequestError

Noise = Callable[[int], Tensor]
"""draw -> standard normal [B, C, h, w]. A sampler with two draws a step asks for 2 * step and 2 * step + 1."""

Mode = Literal["keyed", "sequential", "philox"]
MODES: tuple[Mode, ...] = ("keyed", "sequential", "philox")

SEEDS = 2**64  # torch.Generator takes seeds of 64 bits; seed + i wraps around


def image_seeds(seed: int, count: int) -> list[int]:
    """The seeds of a request's images: seed, seed + 1, ..., wrapping at 2^64."""
    return [(seed + index) % SEEDS for index in range(count)]


def start_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """The start noise of one image, [C, h, w] float32 on the CPU.

    It is what diffusers draws with one CPU generator an image, ComfyUI with batch 1, and A1111 with its CPU source.
    """
    generator = torch.Generator("cpu").manual_seed(seed % SEEDS)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def key(seed: int, purpose: str, draw: int = 0) -> int:
    """64 bits that stand for (seed, purpose, draw): the same on every machine and in every version."""
    digest = hashlib.blake2b(f"{seed % SEEDS}|{purpose}|{draw}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def keyed_generator(seed: int, purpose: str, draw: int = 0) -> torch.Generator:
    """A fresh CPU generator for one purpose of one image."""
    return torch.Generator("cpu").manual_seed(key(seed, purpose, draw))


class NoiseSource(Protocol):
    """The random numbers of a batch of images; every result is [B, *shape]."""

    def start(self) -> Tensor:
        """The start noise."""
        ...

    def draw(self, purpose: str, index: int = 0) -> Tensor:
        """Noise for a purpose ("posterior", "step", ...); `index` tells its draws apart."""
        ...

    def step(self, index: int) -> Tensor:
        """Noise for a stochastic sampler: the `Noise` that samplers take."""
        ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise from generators keyed by (seed, purpose, index); stateless. `stage` tells the purposes of passes apart."""

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    stage: str = ""

    def start(self) -> Tensor:
        return self._place([start_noise(seed, self.shape) for seed in self.seeds])

    def draw(self, purpose: str, index: int = 0) -> Tensor:
        purpose = f"{self.stage} {purpose}" if self.stage else purpose
        return self._place(
            [
                torch.randn(self.shape, generator=keyed_generator(seed, purpose, index), dtype=torch.float32)
                for seed in self.seeds
            ]
        )

    def step(self, index: int) -> Tensor:
        return self.draw("step", index)

    def _place(self, drawn: list[Tensor]) -> Tensor:
        return torch.stack(drawn).to(device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class ApartNoise:
    """Three sources: of the start, of the steps, and of all other draws."""

    beginning: NoiseSource
    steps: NoiseSource
    others: NoiseSource

    def start(self) -> Tensor:
        return self.beginning.start()

    def draw(self, purpose: str, index: int = 0) -> Tensor:
        return self.others.draw(purpose, index)

    def step(self, index: int) -> Tensor:
        return self.steps.step(index)


class StreamNoise:
    """Noise that continues one stream an image: what is drawn depends on what was drawn before, as elsewhere."""

    def __init__(
        self,
        streams: Sequence[Callable[[tuple[int, ...]], Tensor]],
        shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._streams = list(streams)
        self._shape = tuple(shape)
        self._device = device
        self._dtype = dtype

    def start(self) -> Tensor:
        return self._next()

    def draw(self, purpose: str, index: int = 0) -> Tensor:
        return self._next()

    def step(self, index: int) -> Tensor:
        return self._next()

    def _next(self) -> Tensor:
        drawn = torch.stack([stream(self._shape) for stream in self._streams])
        return drawn.to(device=self._device, dtype=self._dtype)


def noise_source(
    mode: Mode,
    seeds: Sequence[int],
    shape: Sequence[int],
    *,
    step_delta: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    stage: str = "",
) -> NoiseSource:
    """The noise of a batch of images, one seed each; `shape` is one image's latent, (C, h, w).

    The noise of the steps is that of generators with seed + `step_delta`, begun anew where it is not 0 (A1111's ENSD).
    `stage` names a pass after the first, whose keyed draws are its own; its start and its streams are the seeds' again.

    Raises RequestError for an unknown mode.
    """
    device = torch.device(device)
    if step_delta:
        own = noise_source(mode, seeds, shape, device=device, dtype=dtype, stage=stage)
        shifted = [(seed + step_delta) % SEEDS for seed in seeds]
        return ApartNoise(own, noise_source(mode, shifted, shape, device=device, dtype=dtype, stage=stage), own)
    if mode == "keyed":
        return KeyedNoise(tuple(seeds), tuple(shape), device, dtype, stage)
    if mode == "sequential":
        return StreamNoise([_cpu_stream(seed) for seed in seeds], shape, device, dtype)
    if mode == "philox":
        stream = StreamNoise([_philox_stream(seed) for seed in seeds], shape, device, dtype)
        return ApartNoise(stream, stream, KeyedNoise(tuple(seeds), tuple(shape), device, dtype, stage))
    raise RequestError(f"noise {mode!r} is not one of {', '.join(MODES)}.", field="noise")


Fresh = Callable[[int, tuple[int, ...]], Tensor]
"""(seed, shape) -> the first numbers of that seed's generator, on the CPU."""


def fresh_noise(mode: Mode) -> Fresh:
    """The start noise of any seed and shape in one of the modes, drawn apart from the streams of a batch."""
    if mode == "philox":
        return lambda seed, shape: torch.from_numpy(Philox(seed % SEEDS).normal(shape))
    return start_noise


def _cpu_stream(seed: int) -> Callable[[tuple[int, ...]], Tensor]:
    generator = torch.Generator("cpu").manual_seed(seed % SEEDS)
    return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float32)


def _philox_stream(seed: int) -> Callable[[tuple[int, ...]], Tensor]:
    philox = Philox(seed % SEEDS)
    return lambda shape: torch.from_numpy(philox.normal(shape))
