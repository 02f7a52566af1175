"""Training an autoencoder: reconstruction, edges, colour, a KL term, and latents that are easy to diffuse."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.preview import fit_factors
from sfumato.train.adversary import Discriminator, adaptive_weight, hinge, judge
from sfumato.train.config import TrainConfig, build
from sfumato.train.data import open_samples, shown
from sfumato.train.device import autocast, channels_last, compile_if_asked, pick_device
from sfumato.train.division import divide
from sfumato.train.parts import read_part, start_folder, write_part
from sfumato.train.perceptual import perceptual
from sfumato.train.plan import Pass, seeded
from sfumato.train.sheet import contact_sheet

LATENT_NOISE, POSTERIOR_NOISE, CROP = 1, 2, 3  # purposes of the keyed generators
RECONSTRUCTION = {"absolute", "squared", "edges", "colour", "perceptual"}  # the terms that compare pictures
SHEET_COUNT = 8
STATISTICS_COUNT, CHUNK = 256, 32  # pictures that the latents' scale is measured on, so many at a time


@dataclass(frozen=True, kw_only=True)
class AutoencoderLoss:
    """Weights of the terms, each a mean over elements.

    `absolute` and `squared` compare pixels, `edges` their differences to the right and down, `colour` the means over a
    latent cell. `divergence` is the KL term. `anchor` draws the first three latent channels to the cell's mean colour,
    which gives latents the statistics of a small picture and so makes them easy to diffuse. `noise` is the standard
    deviation of what is added to the latents that the decoder learns from, so that it forgives a denoiser's errors.
    """

    absolute: float = 1.0
    squared: float = 1.0
    edges: float = 1.0
    colour: float = 1.0
    divergence: float = 1e-4
    anchor: float = 0.0
    noise: float = 0.0
    perceptual: float = 0.0  # distance of features
    features: str = "reader"  # which: of the drawn world's reader, or a file of LPIPS weights
    adversarial: float = 0.0  # deceiving a discriminator of patches, times the weight that adapts to reconstruction's
    adversarial_start: int = 0  # samples before deceiving counts; the discriminator learns from the start
    crop: int = 0  # side of the square that each picture is cut to, 0 for none; of two random squares the busier
    decoder_only: bool = False  # of `start.autoencoder`: latents, and so every UNet that knows them, stay as they are


class AutoencoderTask:
    """The recipe: see `AutoencoderLoss` for what is minimised."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.weights = build(AutoencoderLoss, config.loss, "loss")
        self.device = pick_device(config.run)
        self.samples = open_samples(config.data)
        self.division = divide(self.samples, config.data)
        self.network = channels_last(self._network().to(self.device))
        compile_if_asked(config.run, self.network.encoder, self.network.decoder)
        self.distance = perceptual(self.weights.features).to(self.device) if self.weights.perceptual else None
        with seeded(config.run.seed + 1):
            self.discriminator = Discriminator().to(self.device) if self.weights.adversarial else None
        if self.weights.decoder_only:
            for part in (self.network.encoder, self.network.quant_conv):
                if part is not None:
                    part.requires_grad_(False)

    def _network(self) -> Autoencoder:
        if "autoencoder" in self.config.start:
            if self.config.network:
                raise ConfigError("A run that starts from an autoencoder takes its [network] from there; leave it out.")
            folder = start_folder(self.config, "autoencoder") / "vae"
            return read_part(folder, Autoencoder, AutoencoderConfig.from_json)
        if self.weights.decoder_only:
            raise ConfigError("loss.decoder_only needs start.autoencoder: the encoder that stays as it is.")
        with seeded(self.config.run.seed):
            return Autoencoder(AutoencoderConfig.from_json(self.config.network))

    @property
    def networks(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {"autoencoder": self.network}
        return {**networks, "discriminator": self.discriminator} if self.discriminator else networks

    def inputs(self, part: Pass) -> Tensor:
        """The pictures of a pass, cut, [B, 3, H, W]."""
        indices = self.division.indices(self.config.data.seed, part.numbers)
        pixels = self.samples.pictures(indices, part.numbers)
        if self.weights.crop:
            draws = zip(torch.split(pixels, part.size), part.generators(CROP), strict=True)
            pixels = torch.cat([busier_crops(some, self.weights.crop, draw) for some, draw in draws])
        return pixels

    def loss(self, part: Pass, inputs: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        pixels = inputs.to(self.device, memory_format=torch.channels_last)
        with autocast(self.config.run, self.device):
            with torch.set_grad_enabled(not self.weights.decoder_only):
                posterior = self.network.encode(pixels)
            mean, std = posterior.mean.float(), posterior.std.float()
            drawn, added = (part.normal(purpose, mean.shape[1:]) for purpose in (POSTERIOR_NOISE, LATENT_NOISE))
            latent = mean + std * drawn.to(self.device) + self.weights.noise * added.to(self.device)
            decoded = self.network.decode(latent).float()
        decoded.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        terms = self._terms(pixels, decoded, mean, std)
        if self.distance is not None:
            with autocast(self.config.run, self.device):
                terms["perceptual"] = self.distance(decoded, pixels).mean()
        weighted = {name: getattr(self.weights, name) * term for name, term in terms.items()}
        total = sum(weighted.values(), torch.zeros((), device=self.device))
        figures: dict[str, float | Tensor] = {name: term.detach() for name, term in terms.items()}
        figures["psnr"] = 10 * torch.log10(4 / terms["squared"].detach())
        if self.discriminator is not None:
            reconstruction = torch.stack([weighted[name] for name in sorted(weighted.keys() & RECONSTRUCTION)]).sum()
            against, told = self._adversarial(self.discriminator, pixels, decoded, reconstruction, part)
            total, figures = total + against, {**figures, **told}
        return total, {"loss": total.detach(), **figures}

    def _adversarial(
        self, discriminator: nn.Module, pixels: Tensor, decoded: Tensor, reconstruction: Tensor, part: Pass
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss of deceiving the discriminator and its own, in one sum: each reaches only its own weights."""
        with autocast(self.config.run, self.device):
            loss = hinge(discriminator(pixels).float(), discriminator(decoded.detach()).float())
            deception = -judge(discriminator, decoded).float().mean()
        figures: dict[str, float | Tensor] = {"discriminator": loss.detach(), "deception": deception.detach()}
        if part.seen < self.weights.adversarial_start:
            return loss, figures
        last = self.network.decoder.conv_out.weight
        weight = self.weights.adversarial * adaptive_weight(reconstruction, deception, last)
        return loss + weight * deception, {**figures, "adaptive": weight}

    def _terms(self, pixels: Tensor, decoded: Tensor, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        cell = self.network.config.stride
        difference = decoded - pixels
        means = F.avg_pool2d(pixels, cell)
        variance = std**2
        return {
            "absolute": difference.abs().mean(),
            "squared": (difference**2).mean(),
            "edges": difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean(),
            "colour": (F.avg_pool2d(difference, cell) ** 2).mean(),
            "divergence": 0.5 * (mean**2 + variance - 1 - variance.log()).mean(),
            "anchor": ((mean[:, :3] - means) ** 2).mean(),
        }

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The fidelity of held-back pictures, from the posteriors' means: PSNR in dB, of the mean squared error."""
        held = list(self.division.held)
        squared = []
        for at in range(0, len(held), CHUNK):
            pixels = self.samples.pictures(held[at : at + CHUNK]).to(self.device)
            with autocast(self.config.run, self.device):
                decoded = self.network.decode(self.network.encode(pixels).mean).float()
            squared.append(((decoded - pixels) ** 2).mean((1, 2, 3)))
        return {"psnr": float(10 * torch.log10(4 / torch.cat(squared).mean()))} if held else {}

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        pixels = self.samples.pictures(shown(self.samples, SHEET_COUNT)).to(self.device)
        decoded = self.network.decode(self.network.encode(pixels).mean)
        return contact_sheet([pixels, decoded])

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Writes `vae/` as diffusers has it, the measured scale of the latents as its scaling factor (that of
        the start, where only the decoder was trained), and
        `preview.json`, the factors that turn a scaled latent into a rough picture.
        """
        measured = range(min(STATISTICS_COUNT, self.samples.length or STATISTICS_COUNT))
        latents, colours = [], []
        for at in range(0, len(measured), CHUNK):
            pixels = self.samples.pictures(measured[at : at + CHUNK])
            latents.append(self.network.encode(pixels.to(self.device)).mean.cpu())
            colours.append(F.avg_pool2d(pixels, self.network.config.stride))
        measured_scale = round(1 / float(torch.cat(latents).std()), 5)
        scale = self.network.config.scaling_factor if self.weights.decoder_only else measured_scale
        factors = fit_factors(torch.cat(latents) * scale, torch.cat(colours))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "preview.json").write_text(json.dumps([[round(value, 4) for value in row] for row in factors]) + "\n")
        described = {**self.network.config.to_json(), "scaling_factor": scale, "sample_size": self.config.data.size}
        write_part(self.network, described, folder / "vae", "diffusion_pytorch_model")


def _channels_last(gradient: Tensor) -> Tensor:
    """The loss's gradient in the networks' memory order, without which every convolution would convert it."""
    return gradient.contiguous(memory_format=torch.channels_last)


def busier_crops(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Of two random squares of each picture the one with the larger variance, [B, 3, side, side]."""
    room = pixels.shape[-1] - side + 1
    places = torch.randint(room, (len(pixels), 2, 2), generator=generator).tolist()
    crops = []
    for picture, candidates in zip(pixels, places, strict=True):
        cut = [picture[:, y : y + side, x : x + side] for y, x in candidates]
        crops.append(max(cut, key=lambda square: float(square.var(dim=(1, 2)).sum())))
    return torch.stack(crops)
