"""Training a UNet to denoise latents under words: Stable Diffusion's loop."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sfumato.diffusion.denoiser import PREDICTIONS, denoiser, network_input, target
from sfumato.diffusion.samplers.euler import euler
from sfumato.diffusion.schedule import from_scheduler_config
from sfumato.diffusion.spacing import trailing
from sfumato.diffusion.wrappers import guide_doubled
from sfumato.errors import ConfigError
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.scenes.render import layout
from sfumato.scenes.vocabulary import COLOURS, KINDS
from sfumato.text.tokenizer import Tokenizer
from sfumato.train.config import TrainConfig, build
from sfumato.train.data import World, open_samples, shown
from sfumato.train.device import autocast, channels_last, pick_device
from sfumato.train.latents import cached_latents
from sfumato.train.parts import read_part, start_folder, write_part
from sfumato.train.plan import generator, sample_indices, seeded
from sfumato.train.sheet import contact_sheet
from sfumato.train.text import tokenize

N = TypeVar("N", bound=nn.Module)
C = TypeVar("C")

POSTERIOR, NOISE, TIMESTEP, DROPOUT = 1, 2, 3, 4  # purposes of the keyed generators
SHEET_SHAPE, SHEET_STEPS, SHEET_GUIDANCE = (2, 8), 20, 3.0
HEAD_WIDTH = 64
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""Stable Diffusion's schedule, Rombach et al. 2022, as diffusers writes it."""


@dataclass(frozen=True, kw_only=True)
class UNetLoss:
    """What the network outputs, how timesteps are weighed, and how often it sees no words.

    `weighting`: "uniform"; "min_snr" with `gamma`, Hang et al. 2023; or "clipped", which for v-prediction counts all
    noise levels alike down to SNR `gamma` and lower ones less. `layout` weighs a head, dropped at export, that tells
    from the last features what each latent cell shows; only the drawn world can teach it.
    """

    prediction: str = "v_prediction"
    weighting: str = "uniform"
    gamma: float = 5.0
    drop: float = 0.1
    layout: float = 0.0


class LayoutHead(nn.Module):
    """Kind and colour of what each latent cell shows, from a UNet's last features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = [1 + len(KINDS), 1 + len(COLOURS)]
        self.layers = nn.Sequential(
            nn.Conv2d(channels, HEAD_WIDTH, 1), nn.SiLU(), nn.Conv2d(HEAD_WIDTH, sum(self.sizes), 1)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """[B, C, h, w] to two maps of classes, [B, classes, h, w]."""
        return self.layers(features).split(self.sizes, dim=1)  # type: ignore[no-any-return]


class UNetTask:
    """The recipe: frozen autoencoder and text encoder, latents scaled, noise at uniform timesteps, a weighted MSE.

    `start.autoencoder` and `start.text` name folders that hold `vae/`, and `text_encoder/` with `tokenizer/`;
    `start.unet`, if given, a folder whose `unet/` the run begins from.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.weights = build(UNetLoss, config.loss, "loss")
        if self.weights.prediction not in PREDICTIONS:
            raise ConfigError(f"loss.prediction is one of {', '.join(PREDICTIONS)}; found {self.weights.prediction!r}.")
        if self.weights.weighting not in ("uniform", "min_snr", "clipped"):
            raise ConfigError(f"loss.weighting is uniform, min_snr or clipped; found {self.weights.weighting!r}.")
        self.device = pick_device(config.run)
        self.samples = open_samples(config.data)
        if self.samples.length == 0:
            raise ConfigError("data.pool must be set: a UNet is trained on latents that are encoded once.")
        if self.weights.layout and not isinstance(self.samples, World):
            raise ConfigError("loss.layout needs data.source = 'world'; for a folder leave it at 0.")
        self.autoencoder = self._frozen("autoencoder", "vae", Autoencoder, AutoencoderConfig.from_json)
        self.encoder = self._frozen("text", "text_encoder", TextEncoder, TextEncoderConfig.from_json)
        self.tokenizer = Tokenizer.from_folder(start_folder(config, "text") / "tokenizer")
        self.schedule = from_scheduler_config(SCHEDULER)
        self._build()
        self._gather()

    def _build(self) -> None:
        continued = "unet" in self.config.start
        if continued and self.config.network:
            raise ConfigError("A run that starts from a UNet takes its [network] from there; leave it out.")
        with seeded(self.config.run.seed):
            if continued:
                network = read_part(start_folder(self.config, "unet") / "unet", UNet, UNetConfig.from_json)
            else:
                network = UNet(UNetConfig.from_json(self.config.network))
            head = LayoutHead(network.config.block_out_channels[0])
        self.network = channels_last(network.to(self.device))
        self.head = head.to(self.device)
        self.features: Tensor | None = None
        if self.weights.layout:
            self.network.up_blocks[-1].register_forward_hook(self._keep)

    def _gather(self) -> None:
        scale = self.autoencoder.config.scaling_factor
        mean, std = cached_latents(self.autoencoder, self.samples, self.config, self.device)
        self.mean, self.std = mean.float() * scale, std.float() * scale
        self.scenes = self.samples.scenes(range(self.samples.length)) if isinstance(self.samples, World) else []
        self.sigmas = torch.tensor(self.schedule.sigmas, dtype=torch.float32)
        if self.weights.layout:
            self.kinds, self.colours = layout(self.scenes, self.mean.shape[-1])

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"unet": self.network, "head": self.head} if self.weights.layout else {"unet": self.network}

    def loss(self, step: int, microbatch: int, first: int, count: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        indices = sample_indices(self.config.data.seed, first, count, self.samples.length)
        seed = self.config.run.seed
        draw = [generator(seed, step, microbatch, purpose) for purpose in (POSTERIOR, NOISE, TIMESTEP, DROPOUT)]
        clean = self.mean[indices] + self.std[indices] * torch.randn(self.mean[indices].shape, generator=draw[0])
        noise = torch.randn(clean.shape, generator=draw[1])
        # One timestep from each of `count` equal parts: uniform, with less variance than independent draws.
        uniform = (torch.randperm(count, generator=draw[2]) + torch.rand(count, generator=draw[2])) / count
        timestep = (uniform * len(self.sigmas)).long().clamp(max=len(self.sigmas) - 1)
        sigma = self.sigmas[timestep]
        dropped = torch.rand(count, generator=draw[3]) < self.weights.drop
        context = self._context(indices, [first + at for at in range(count)], dropped)
        noised = network_input(clean, noise, sigma).to(self.device, memory_format=torch.channels_last)
        goal = target(self.weights.prediction, clean, noise, sigma).to(self.device)  # type: ignore[arg-type]
        with autocast(self.config.run, self.device):
            output = self.network(noised, timestep.float().to(self.device), context).float()
        errors = ((output - goal) ** 2).mean((1, 2, 3))
        weight = self._weight(sigma).to(self.device)
        total = (weight * errors).mean()
        figures: dict[str, float | Tensor] = {"mse": errors.detach().mean(), "dropped": dropped.float().mean()}
        for name, low, high in (("low", 0, 250), ("middle", 250, 750), ("high", 750, 1000)):
            inside = ((timestep >= low) & (timestep < high)).to(self.device)
            figures[f"mse_{name}"] = errors.detach()[inside].mean()
        if self.weights.layout:
            wrong = self._layout_loss(indices, sigma, dropped)
            total = total + self.weights.layout * wrong
            figures["layout"] = wrong.detach()
        return total, {"loss": total.detach(), **figures}

    def _weight(self, sigma: Tensor) -> Tensor:
        """The weight of each sample's squared error, [B], for what the network outputs."""
        snr, gamma = sigma**-2, self.weights.gamma
        if self.weights.weighting == "uniform":
            return torch.ones_like(sigma)
        if self.weights.weighting == "clipped":
            return (snr + 1).clamp(max=gamma + 1) / (snr + 1)
        per_output = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
        return snr.clamp(max=gamma) / per_output[self.weights.prediction]

    def _layout_loss(self, indices: list[int], sigma: Tensor, dropped: Tensor) -> Tensor:
        """Cross-entropy of kind and colour in each latent cell; cells that show a thing count as much as all others."""
        assert self.features is not None
        kinds, colours = self.kinds[indices].long(), self.colours[indices].long()
        answers = self.head(self.features.float())
        thing = (kinds > 0).float()
        balance = thing / thing.sum().clamp(min=1) + (1 - thing) / (1 - thing).sum().clamp(min=1)
        balance = (balance * (~dropped).float()[:, None, None]).to(self.device) / 2
        goals = (kinds.to(self.device), colours.to(self.device))
        losses = [F.cross_entropy(a, g, reduction="none") for a, g in zip(answers, goals, strict=True)]
        return (torch.stack(losses).sum(0) * balance).sum()

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.features = output

    @torch.no_grad()
    def _context(self, indices: list[int], draws: list[int], dropped: Tensor) -> Tensor:
        if isinstance(self.samples, World):
            captions = self.samples.described([self.scenes[index] for index in indices], draws)
            texts = [caption.text for caption in captions]
        else:
            texts = self.samples.captions(indices, draws)
        texts = ["" if drop else text for drop, text in zip(dropped.tolist(), texts, strict=True)]
        return self._encode(texts)

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> Tensor:
        with autocast(self.config.run, self.device):
            return self.encoder(tokenize(self.tokenizer, texts).to(self.device)).last.float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Pictures of the first captions of the pool, always from the same noise."""
        rows, columns = SHEET_SHAPE
        count = rows * columns
        texts = self.samples.captions(shown(self.samples, count), range(count))
        context = self._encode([""] * count + texts)

        def network(x: Tensor, timestep: Tensor) -> Tensor:
            with autocast(self.config.run, self.device):
                return self.network(x.contiguous(memory_format=torch.channels_last), timestep, context).float()  # type: ignore[no-any-return]

        denoise = denoiser(network, self.schedule, self.weights.prediction)  # type: ignore[arg-type]
        sigmas = trailing(self.schedule, SHEET_STEPS)
        start = torch.randn((count, *self.mean.shape[1:]), generator=generator(self.config.run.seed, 0, 0, NOISE))
        x = (start * (1 + sigmas[0] ** 2) ** 0.5).to(self.device)
        for step in euler(guide_doubled(denoise, SHEET_GUIDANCE), x, sigmas, lambda index: start):
            x = step.x
        pixels = self.autoencoder.decode(x / self.autoencoder.config.scaling_factor)
        return contact_sheet(list(pixels.reshape(*SHEET_SHAPE, *pixels.shape[1:])))

    def export(self, folder: Path) -> None:
        """Writes `unet/` and `scheduler/` as diffusers has them."""
        described = {
            **self.network.config.to_json(),
            "sample_size": self.config.data.size // self.autoencoder.config.stride,
        }
        write_part(self.network, described, folder / "unet", "diffusion_pytorch_model")
        target_folder = folder / "scheduler"
        target_folder.mkdir(parents=True, exist_ok=True)
        scheduler = {**SCHEDULER, "prediction_type": self.weights.prediction}
        (target_folder / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n")

    def _frozen(
        self, name: str, part: str, network: Callable[[C], N], described: Callable[[Mapping[str, Any]], C]
    ) -> N:
        """A trained part from the folder that `start.NAME` names, frozen."""
        trained = read_part(start_folder(self.config, name) / part, network, described)
        return channels_last(trained.to(self.device).requires_grad_(False).eval())
