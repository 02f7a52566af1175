"""Training a text encoder: to tell what a caption claims (the drawn world), and to match captions with pictures."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.scenes.captions import Caption
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, PLACES, RELATIONS, SIZES, STYLES
from sfumato.text.tokenizer import Tokenizer
from sfumato.text.vocabulary import train_vocabulary
from sfumato.train.config import TrainConfig, build
from sfumato.train.data import World, open_samples
from sfumato.train.device import autocast, pick_device
from sfumato.train.parts import read_part, start_folder, write_part
from sfumato.train.plan import Pass, sample_indices, seeded

READOUT = 1  # purpose of the keyed generator that picks the place a claim is read from
SLOTS = 2  # things whose claims are read
VOCABULARY_CAPTIONS = 20_000
PICTURE_WIDTHS = (32, 64, 128, 128)  # of the convolutions that a picture goes through for the contrastive loss
TEMPERATURE = 0.07  # where the contrastive loss starts; Radford et al. 2021


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """Weights: `claims` of telling attributes from any state after the end token, `contrastive` of CLIP's loss."""

    claims: float = 1.0
    contrastive: float = 0.0


class ClaimHeads(nn.Module):
    """Linear read-outs of everything that a caption can claim; class 0 is that it does not say."""

    CHOICES = (("kind", tuple(KINDS)), ("colour", tuple(COLOURS)), ("size", tuple(SIZES)), ("place", tuple(PLACES)))
    GLOBAL = (("background", tuple(BACKGROUNDS)), ("style", tuple(STYLES)), ("relation", tuple(RELATIONS)))

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [1 + len(options) for _ in range(SLOTS) for _, options in self.CHOICES]
        sizes += [1 + len(options) for _, options in self.GLOBAL]
        self.sizes = sizes
        self.linear = nn.Linear(width, sum(sizes))

    def forward(self, state: Tensor) -> tuple[Tensor, ...]:
        """[B, D] to one [B, classes] for each claim."""
        return self.linear(state).split(self.sizes, dim=1)  # type: ignore[no-any-return]

    def targets(self, captions: list[Caption]) -> Tensor:
        """[claims, B] class numbers."""
        rows = []
        for described in captions:
            row = []
            for slot in range(SLOTS):
                claim = described.claims[slot] if slot < len(described.claims) else None
                row += [_number(getattr(claim, name) if claim else None, options) for name, options in self.CHOICES]
            row += [_number(getattr(described, name), options) for name, options in self.GLOBAL]
            rows.append(row)
        return torch.tensor(rows).T


class PictureTower(nn.Module):
    """A small convolutional encoder of pictures, the other half of the contrastive loss; not kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels in PICTURE_WIDTHS:
            layers += [nn.Conv2d(inputs, channels, 3, stride=2, padding=1), nn.GroupNorm(8, channels), nn.SiLU()]
            inputs = channels
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(inputs, width)
        self.scale = nn.Parameter(torch.tensor(1 / TEMPERATURE).log())

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, width]."""
        return self.project(self.layers(pixels).mean((2, 3)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Told:
    """Captions as ids [B, 77], what they claim (of the drawn world), and their pictures [B, 3, H, W] if needed."""

    ids: Tensor
    described: list[Caption]
    pictures: Tensor | None


class TextTask:
    """The recipe: a vocabulary from the captions, then the encoder.

    Or, with `start.text`, a folder's `text_encoder/` further, which keeps the vocabulary in the `tokenizer/` beside it.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.weights = build(TextLoss, config.loss, "loss")
        self.device = pick_device(config.run)
        self.samples = open_samples(config.data)
        if self.weights.claims and not isinstance(self.samples, World):
            raise ConfigError(
                "loss.claims needs data.source = 'world'; for a folder set it to 0 and loss.contrastive to 1."
            )
        with seeded(config.run.seed):
            self.tokenizer, encoder = self._continued() if "text" in config.start else self._new()
            self.encoder = encoder.to(self.device)
            width = encoder.config.hidden_size
            self.heads = ClaimHeads(width).to(self.device)
            self.tower = PictureTower(width).to(self.device)

    @property
    def networks(self) -> dict[str, nn.Module]:
        trained: dict[str, nn.Module] = {"encoder": self.encoder}
        if self.weights.claims:
            trained["heads"] = self.heads
        if self.weights.contrastive:
            trained["tower"] = self.tower
        return trained

    def inputs(self, part: Pass) -> Told:
        """The captions of a pass, and their pictures where they are looked at."""
        indices, draws = sample_indices(self.config.data.seed, part.numbers, self.samples.length), part.numbers
        described: list[Caption] = []
        if isinstance(self.samples, World):
            described = self.samples.described(self.samples.scenes(indices), draws)
            texts = [caption.text for caption in described]
        else:
            texts = self.samples.captions(indices, draws)
        pictures = self.samples.pictures(indices, draws) if self.weights.contrastive else None
        return Told(tokenize(self.tokenizer, texts), described, pictures)

    def loss(self, part: Pass, inputs: Told) -> tuple[Tensor, dict[str, float | Tensor]]:
        total = torch.zeros((), device=self.device)
        figures: dict[str, float | Tensor] = {}
        ids = inputs.ids.to(self.device)
        with autocast(self.config.run, self.device):
            states = self.encoder(ids)
            if self.weights.claims:
                loss, right = self._claims(states.last, ids, inputs.described, part)
                total = total + self.weights.claims * loss
                figures |= {"claims": loss.detach(), "right": right}
            if inputs.pictures is not None:
                pictures = self.tower(inputs.pictures.to(self.device))
                # Within a microbatch, so that the sum over the step does not depend on how it is divided.
                halves = zip(
                    torch.split(states.pooled.float(), part.size), torch.split(pictures.float(), part.size), strict=True
                )
                pairs = [contrastive(texts, shown, self.tower.scale) for texts, shown in halves]
                loss, right = (torch.stack(each).mean() for each in zip(*pairs, strict=True))
                total = total + self.weights.contrastive * loss
                figures |= {"contrastive": loss.detach(), "matched": right}
        return total, {"loss": total.detach(), **figures}

    def _claims(self, last: Tensor, ids: Tensor, described: list[Caption], part: Pass) -> tuple[Tensor, Tensor]:
        """Cross-entropy of all claims, read at a random place from the end token on, so that each of them tells."""
        end = self.encoder.end(ids)
        uniform = part.uniform(READOUT).to(self.device)
        place = end + (uniform * (ids.shape[1] - end)).long()
        state = last[torch.arange(len(ids), device=self.device), place].float()
        targets = self.heads.targets(described).to(self.device)
        answers = self.heads(state)
        pairs = list(zip(answers, targets, strict=True))
        loss = torch.stack([F.cross_entropy(answer.float(), target) for answer, target in pairs]).sum()
        right = torch.stack([(answer.argmax(1) == target) for answer, target in pairs]).all(0).float().mean()
        return loss, right

    def validate(self) -> dict[str, float]:
        """Nothing: captions of the drawn world are endless, so that the log is of captions never seen before."""
        return {}

    def sheet(self) -> Image.Image | None:
        """There is nothing to see."""
        return None

    def export(self, folder: Path) -> None:
        """Writes `text_encoder/` and `tokenizer/` as diffusers has them."""
        write_part(self.encoder, self.encoder.config.to_json(), folder / "text_encoder", "model")
        self.tokenizer.save(folder / "tokenizer")

    def _continued(self) -> tuple[Tokenizer, TextEncoder]:
        if self.config.network:
            raise ConfigError("A run that starts from a text encoder takes its [network] from there; leave it out.")
        folder = start_folder(self.config, "text")
        encoder = read_part(folder / "text_encoder", TextEncoder, TextEncoderConfig.from_json)
        return Tokenizer.from_folder(folder / "tokenizer"), encoder

    def _new(self) -> tuple[Tokenizer, TextEncoder]:
        network = dict(self.config.network)
        size = int(network.pop("vocab_size", 1024))
        count = min(VOCABULARY_CAPTIONS, self.samples.length or VOCABULARY_CAPTIONS)
        tokenizer = Tokenizer(*train_vocabulary(self.samples.captions(range(count), range(count)), size))
        ends = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
        described = TextEncoderConfig.from_json({**network, **ends, "vocab_size": len(tokenizer)})
        return tokenizer, TextEncoder(described)


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Ids [B, max_length] with specials and padding; what does not fit is left out, as CLIP's training did."""
    rows = []
    for text in texts:
        ids = [tokenizer.bos, *tokenizer.encode(text)[: tokenizer.max_length - 2], tokenizer.eos]
        rows.append(ids + [tokenizer.pad] * (tokenizer.max_length - len(ids)))
    return torch.tensor(rows)


def contrastive(texts: Tensor, pictures: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric cross-entropy over a batch, [B, D] each, and the share of captions that find their picture."""
    logits = scale.exp().clamp(max=100) * F.normalize(texts, dim=1) @ F.normalize(pictures, dim=1).T
    own = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    return loss, (logits.argmax(1) == own).float().mean()


def _number(value: str | None, options: tuple[str, ...]) -> int:
    return 0 if value is None else 1 + options.index(value)
