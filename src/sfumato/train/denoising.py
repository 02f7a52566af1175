"""The loop's body of every recipe that trains a network to denoise latents under words: Stable Diffusion's loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from sfumato.diffusion.denoiser import denoiser, network_input, target
from sfumato.diffusion.samplers.euler import euler
from sfumato.diffusion.spacing import trailing
from sfumato.diffusion.wrappers import guide_doubled
from sfumato.errors import ConfigError
from sfumato.text.encode import Conditioning, stack
from sfumato.train import prior
from sfumato.train.ahead import ahead, count_workers, in_chunks
from sfumato.train.config import TrainConfig, build
from sfumato.train.data import Samples, World, open_samples, shown
from sfumato.train.data.kept import Kept
from sfumato.train.device import autocast, compile_if_asked, pick_device
from sfumato.train.division import divide, in_buckets
from sfumato.train.foundation import Foundation, foundation
from sfumato.train.latents import cached_latents, refuse_varying
from sfumato.train.objective import DenoisingLoss
from sfumato.train.plan import Pass, generator
from sfumato.train.sheet import contact_sheet

POSTERIOR, NOISE, TIMESTEP, DROPOUT, MIRROR, OFFSET, VALIDATION = range(1, 8)  # purposes of the keyed generators
SHEET_SHAPE, SHEET_STEPS, SHEET_GUIDANCE = (2, 8), 20, 3.0
LEVELS = 10  # noise levels that the validation loss is taken at
SCENES = 256  # scenes that are drawn at a time
REMEMBERED = 1 << 30  # bytes of encoded captions that are kept


@dataclass(frozen=True)
class Said:
    """Captions of B samples: the different texts, their ids [U, L] for each text encoder, and which is whose, [B]."""

    texts: list[str]
    ids: tuple[Tensor, ...]
    rows: Tensor


@dataclass(frozen=True)
class Batch:
    """The samples of a pass: indices into the data, clean latents, noise and timesteps, words and who sees none.

    `mirrored`: whose picture is seen in a mirror; None for nobody's. `shown` is what a recipe's `extra_input` is of.
    """

    indices: list[int]
    clean: Tensor
    noise: Tensor
    timestep: Tensor
    dropped: Tensor
    part: Pass
    mirrored: Tensor | None = None
    said: Said | None = None
    shown: Any = None


class Denoising(ABC):
    """Frozen autoencoder and text encoder, latents scaled, noise at stratified timesteps, a weighted squared error.

    A recipe says what is trained and exported; it may also say what else the network sees and how samples are weighed.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.device = pick_device(config.run)
        self.loss_config = build(DenoisingLoss, config.loss, "loss")
        self.prior = prior.read_prior(config)
        self.samples: Samples = open_samples(config.data)
        if self.samples.length == 0:
            raise ConfigError("data.pool must be set: a UNet is trained on latents that are encoded once.")
        self.world = self.samples if isinstance(self.samples, World) else None
        if self.loss_config.layout and self.world is None:
            raise ConfigError("loss.layout needs data.source = 'world'; for a folder leave it at 0.")
        if config.data.mirror and self.world is not None:
            raise ConfigError("data.mirror: captions of the drawn world name left and right; leave it out.")
        self.division = in_buckets(
            divide(self.samples, config.data),
            self.samples,
            config.run.batch // config.run.microbatches,
            config.data.seed,
        )
        self.base = self.prepared(foundation(config, self.loss_config))
        self.objective = self.base.objective
        if self.prior is not None:
            self._add_class(self.prior)
        needed = self.samples.length + (len(self.division.held) if self.world is not None else 0)
        if self.world is not None:
            drawn = ahead(self.world.scenes, in_chunks(range(needed), SCENES), count_workers(config.run, self.device))
            self.world.held = [each for some in drawn for each in some]
        refuse_varying(self.samples)
        if config.data.keep:
            self.samples = Kept(self.samples, needed, config.run, self.device)
        self.latents = cached_latents(self.base.autoencoder, self.samples, needed, config, self.device)
        self._encoded: dict[str, Conditioning] = {}
        self.base.unet.gradient_checkpointing = config.run.recompute
        compile_if_asked(config.run, self.base.unet)

    def _add_class(self, settings: prior.PriorConfig) -> None:
        assert self.base.model is not None
        prior.draw_missing(self.base.model, settings, self.config)
        others = prior.open_class(settings, self.config)
        both = prior.WithClass(self.samples, others)
        self.division = prior.alternate(self.division, both, self.config.run, self.config.data.seed)
        self.samples = both

    def prepared(self, base: Foundation) -> Foundation:
        """What the run stands on, changed as the recipe needs it, before any picture is encoded."""
        return base

    @property
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """What is trained."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Writes what was trained."""

    @property
    def text_is_trained(self) -> bool:
        """Must gradients reach the text encoders?"""
        return False

    def extra_input(self, batch: Batch) -> Tensor | None:
        """Channels that the network sees beside the noised latent, [B, C, h, w]."""
        return None

    def sheet_input(self, indices: Sequence[int]) -> Tensor | None:
        """What `extra_input` is for a sheet of these samples, in no batch."""
        return None

    def importance(self, batch: Batch) -> Tensor | None:
        """The weight of each sample's error in the mean over the step, [B]; None for 1."""
        return None if self.prior is None else prior.importance(batch.part.numbers, self.prior.weight, self.block)

    @property
    def block(self) -> int:
        """How many samples come together, where those of a class are between the subject's."""
        return self.division.block if isinstance(self.division, prior.Alternating) else 1

    def auxiliary(self, batch: Batch) -> dict[str, Tensor]:
        """Further terms of the loss, means over the samples, by the name of their weight in the loss's settings."""
        return {}

    def inputs(self, part: Pass) -> list[Batch]:
        """The samples of a pass; where they have several sizes, those of each microbatch."""
        parts = [part] if part.count == 1 or self.division.of_one_size else part.microbatches
        return [self.draw(each) for each in parts]

    def loss(self, part: Pass, inputs: list[Batch]) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The weighted squared error, a mean over the samples; figures for low, middle and high noise beside it."""
        if len(inputs) == 1:
            return self._loss(inputs[0])
        losses, told = zip(*(self._loss(each) for each in inputs), strict=True)
        figures: dict[str, float | Tensor] = {name: sum(each[name] for each in told) / part.count for name in told[0]}
        return torch.stack(losses).mean(), figures

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        sigma = self.objective.sigmas[batch.timestep]
        assert batch.said is not None
        told = self.conditioning(batch.said, self.samples.bucket(batch.indices[0]))
        errors = self.errors(batch, sigma, told)
        weight = self.objective.weight(sigma).to(self.device)
        importance = self.importance(batch)
        weighted = errors * weight if importance is None else errors * weight * importance.to(self.device)
        auxiliary = self.auxiliary(batch)
        total = weighted.mean()
        for name, term in auxiliary.items():
            total = total + getattr(self.loss_config, name) * term
        figures: dict[str, float | Tensor] = {
            **self._apart(errors.detach(), batch.part),
            "loss": total.detach(),
            "mse": errors.detach().mean(),
            "dropped": batch.dropped.float().mean(),
            **{name: term.detach() for name, term in auxiliary.items()},
        }
        for name, low, high in (("low", 0, 0.25), ("middle", 0.25, 0.75), ("high", 0.75, 1)):
            level = batch.timestep / len(self.objective.sigmas)
            inside = ((level >= low) & (level < high)).to(self.device)
            figures[f"mse_{name}"] = (errors.detach() * inside).mean() / (high - low)
        return total, figures

    def _apart(self, errors: Tensor, part: Pass) -> dict[str, float | Tensor]:
        """The mean errors of subject and class, where there are both."""
        if self.prior is None:
            return {}
        others = torch.tensor([prior.is_class(number, self.block) for number in part.numbers], device=self.device)
        return {"mse_subject": (errors * ~others).mean() * 2, "mse_class": (errors * others).mean() * 2}

    def draw(self, part: Pass) -> Batch:
        """The samples of a pass with all their random numbers."""
        indices = self.division.indices(self.config.data.seed, part.numbers)
        mirrored = part.uniform(MIRROR) < 0.5 if self.config.data.mirror else None
        clean = self.latents.draw(indices, part.normal(POSTERIOR, self.latents.shape(indices[0])), mirrored)
        noise = part.normal(NOISE, clean.shape[1:])
        if self.loss_config.noise_offset:
            noise = noise + self.loss_config.noise_offset * part.normal(OFFSET, (clean.shape[1], 1, 1))
        timestep = self.objective.timesteps(part.strata(TIMESTEP))
        dropped = part.uniform(DROPOUT) < self.loss_config.drop
        batch = Batch(indices, clean, noise, timestep, dropped, part, mirrored)
        return replace(batch, said=self.said(self.captions(batch), dropped))

    def captions(self, batch: Batch) -> list[str]:
        """A caption of each sample."""
        return self.samples.captions(batch.indices, batch.part.numbers)

    def errors(self, batch: Batch, sigma: Tensor, told: Conditioning) -> Tensor:
        """The squared error of each sample, [B]."""
        clean, noise, level = (tensor.to(self.device) for tensor in (batch.clean, batch.noise, sigma))
        noised = network_input(clean, noise, level)
        goal = target(self.objective.prediction, clean, noise, level)
        extra = self.extra_input(batch)
        seen = noised if extra is None else torch.cat([noised, extra], dim=1)
        with autocast(self.config.run, self.device):
            output = self.base.unet(
                seen, batch.timestep.float().to(self.device), told.context, told.pooled, told.size
            ).float()
        squared: Tensor = (output - goal) ** 2
        return squared.mean((1, 2, 3))

    def said(self, texts: Sequence[str], dropped: Tensor | None = None) -> Said:
        """Captions as the text encoders take them, no words where dropped."""
        flags = [False] * len(texts) if dropped is None else dropped.tolist()
        said = ["" if drop else text for text, drop in zip(texts, flags, strict=True)]
        different = {text: row for row, text in enumerate(dict.fromkeys(said))}
        return Said(list(different), self.base.text.ids(list(different)), torch.tensor([different[t] for t in said]))

    def conditioning(self, said: Said, size: tuple[int, int]) -> Conditioning:
        """What the network is told of pictures of this width and height."""
        return self.base.sized(self._encode(said).take(said.rows.to(self.device)), size)

    def _encode(self, said: Said) -> Conditioning:
        """What the text encoders make of the different texts."""
        learns = self.text_is_trained and torch.is_grad_enabled()
        if self.text_is_trained or self.world is not None:  # those of the drawn world do not come again
            return self._states(said.ids, learns)
        new = [row for row, text in enumerate(said.texts) if text not in self._encoded]
        held = self._encoded
        if new:
            fresh = self._states(tuple(ids[new] for ids in said.ids), False)
            held = {**held, **{said.texts[row]: fresh[at : at + 1] for at, row in enumerate(new)}}
            if len(held) * fresh.context[0].numel() * 4 < REMEMBERED:
                self._encoded = held
        return stack([held[text] for text in said.texts])

    def _states(self, ids: Sequence[Tensor], learns: bool) -> Conditioning:
        with torch.set_grad_enabled(learns), autocast(self.config.run, self.device):
            return self.base.text.encode_ids(ids).to(dtype=torch.float32)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The squared error on held-back samples, always with the same noise: the mean, and at each of ten levels."""
        indices = list(self.division.held)
        if not indices:
            return {}
        steps = len(self.objective.sigmas)
        alike: dict[tuple[int, int], list[int]] = {}
        for index in indices:
            alike.setdefault(self.samples.bucket(index), []).append(index)
        batch = self.config.run.batch
        parts = [some[at : at + batch] for some in alike.values() for at in range(0, len(some), batch)]
        figures: dict[str, float] = {}
        for level in range(LEVELS):
            timestep = torch.full((batch,), int((level + 0.5) * steps / LEVELS))
            errors = [self._held_errors(part, timestep, level) for part in parts]
            figures[f"mse_{int(timestep[0]):04d}"] = float(torch.cat(errors).mean())
        return {"mse": sum(figures.values()) / LEVELS, **figures}

    def _held_errors(self, indices: list[int], timestep: Tensor, level: int) -> Tensor:
        count = len(indices)
        part = Pass(self.config.run.seed, level, indices[0], count, count, 0, 1)
        clean = self.latents.draw(indices, torch.zeros(()))
        shape = clean.shape[1:]
        noise = torch.stack(
            [torch.randn(shape, generator=generator(self.config.run.seed, level, i, VALIDATION)) for i in indices]
        )
        batch = Batch(indices, clean, noise, timestep[:count], torch.zeros(count, dtype=torch.bool), part)
        said = self.said(self.samples.captions(indices, [0] * count))
        told = self.conditioning(said, self.samples.bucket(indices[0]))
        return self.errors(batch, self.objective.sigmas[batch.timestep], told)

    @torch.no_grad()
    def sheet(self) -> Image.Image | None:
        """Pictures of the first captions of the data, always from the same noise."""
        rows, columns = SHEET_SHAPE
        count = rows * columns
        indices = shown(self.samples, count)
        size = self.samples.bucket(indices[0])
        texts = self.samples.captions(indices, range(count))
        told = stack([self.conditioning(self.said(each), size) for each in ([""] * count, texts)])
        extra = self.sheet_input(indices)

        def network(x: Tensor, timestep: Tensor) -> Tensor:
            seen = x if extra is None else torch.cat([x, extra.repeat(2, 1, 1, 1)], dim=1)
            with autocast(self.config.run, self.device):
                return self.base.unet(seen, timestep, told.context, told.pooled, told.size).float()  # type: ignore[no-any-return]

        schedule = self.objective.schedule
        denoise = denoiser(network, schedule, self.objective.prediction)
        sigmas = trailing(schedule, SHEET_STEPS)
        shape = (count, *self.latents.shape(indices[0]))
        start = torch.randn(shape, generator=generator(self.config.run.seed, 0, 0, NOISE))
        x = (start * (1 + sigmas[0] ** 2) ** 0.5).to(self.device)
        for step in euler(guide_doubled(denoise, SHEET_GUIDANCE), x, sigmas, lambda index: start):
            x = step.x
        pixels = self.base.autoencoder.decode(x / self.base.autoencoder.config.scaling_factor)
        return contact_sheet(list(pixels.reshape(*SHEET_SHAPE, *pixels.shape[1:])))
