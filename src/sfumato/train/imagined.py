"""Pairs of kind and colour that the drawn world never shows, as the network that training begins with composes them.

Where kind and colour are told from a noised picture x independently, log p(x | kind, colour) is the sum of
log p(x | kind) and log p(x | other kind, colour) less log p(x | other kind), and so are the predictions under these
captions (Liu et al. 2022, Compositional visual generation with composable diffusion models). All three were learnt from
scenes; the sum draws pairs that the network itself, asked for them, does not. What a colour adds is a mean over several
other kinds. No picture but the network's own is used.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfumato.diffusion.denoiser import denoiser
from sfumato.diffusion.samplers.euler import euler
from sfumato.diffusion.spacing import trailing
from sfumato.diffusion.wrappers import guide_doubled
from sfumato.errors import ConfigError
from sfumato.model import hash_tensors
from sfumato.nn.unet import UNet
from sfumato.scenes.captions import SAID, caption
from sfumato.scenes.scene import Scene, scene
from sfumato.scenes.vocabulary import KINDS, UNSEEN_PAIRS
from sfumato.train.config import TrainConfig, build
from sfumato.train.objective import Objective
from sfumato.train.plan import Pass

log = logging.getLogger(__name__)

CHOSEN, WHICH = 31, 32  # purposes of the keyed generators
OTHER, WORDS = 9, 10  # of the streams of a scene: which other kind, and how it is said
CHUNK = 48  # pictures that are composed together
MOST_OTHERS = 3  # other kinds with as many nouns that a colour is shown on; each kind has so many

Encode = Callable[[list[str]], Tensor]
"""Captions as the network is told them, [N, 77, D]."""


@dataclass(frozen=True, kw_only=True)
class ImaginedConfig:
    """`count` composed pictures take the place of so large a `share` of the samples; `seed` is that of their scenes.

    `others` is the number of other kinds from which it is learnt what the colour adds, and `colour` how many times that
    is added: at 1 what independence says, above it colours are purer and kinds vaguer. `itself` is how much of what the
    network says of the pair itself, from 0 to 1, is in the composition. `model` is a model with the same latents that
    composes in place of the UNet that the run starts from.
    """

    share: float
    count: int = 192
    others: int = 1
    colour: float = 1.0
    itself: float = 0.0
    model: str = ""
    steps: int = 20
    guidance: float = 2.5
    seed: int = 0


@dataclass(frozen=True)
class Imagined:
    """Captions, their scaled latents [N, C, h, w], and how large a share of the samples they are."""

    captions: list[str]
    latents: Tensor
    share: float

    def places(self, part: Pass) -> dict[int, int]:
        """Which samples of a pass are imagined, and which picture each is."""
        chosen, which = part.uniform(CHOSEN) < self.share, part.uniform(WHICH) * len(self.captions)
        return {int(at): int(which[at]) for at in chosen.nonzero().flatten()}


def read_imagined(config: TrainConfig) -> ImaginedConfig | None:
    """The section [imagined], None without. Raises ConfigError for what cannot be, before any work."""
    if not config.imagined:
        return None
    settings = build(ImaginedConfig, config.imagined, "imagined")
    if config.data.source != "world":
        raise ConfigError("[imagined] composes things of the drawn world; with pictures of your own leave it out.")
    if config.loss.get("layout"):
        raise ConfigError("loss.layout needs to know where things are, and [imagined] does not; leave out one of them.")
    if not 0 < settings.share <= 1:
        raise ConfigError(f"imagined.share is {settings.share}; it is a share above 0 and at most 1.")
    if not 1 <= settings.others <= MOST_OTHERS:
        raise ConfigError(f"imagined.others is {settings.others}; it is from 1 to {MOST_OTHERS}.")
    if not settings.colour > 0:
        raise ConfigError(f"imagined.colour is {settings.colour}; it is above 0.")
    if not 0 <= settings.itself < 1:
        raise ConfigError(f"imagined.itself is {settings.itself}; it is at least 0 and below 1.")
    for name in ("count", "steps"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"imagined.{name} is {getattr(settings, name)}; it is 1 or more.")
    return settings


@dataclass(frozen=True)
class Composition:
    """Captions: of the whole picture, of its kind alone, and of each other kind in its colour and without a colour."""

    whole: str
    kind: str
    coloured: tuple[str, ...]
    others: tuple[str, ...]


def composer(model: str, device: torch.device) -> tuple[UNet, Encode]:
    """The network of a model, and how it is told captions. Raises what loading it raises."""
    from sfumato.weights.load import load

    other = load(model, dtype=torch.float32, device=device)
    return other.unet, lambda texts: other.text.encode(texts, rows=len(texts)).context


def compositions(settings: ImaginedConfig) -> list[Composition]:
    """What each picture is composed of."""
    return [_composition(settings, number) for number in range(settings.count)]


def _composition(settings: ImaginedConfig, number: int) -> Composition:
    seed = settings.seed
    drawn = scene(seed, number, "unseen_pairs")
    thing = drawn.things[0]
    kinds = [
        kind
        for kind, nouns in KINDS.items()  # as many nouns, so that the same numbers choose the same words
        if kind != thing.kind and len(nouns) == len(KINDS[thing.kind]) and (kind, thing.colour) not in UNSEEN_PAIRS
    ]
    chosen = np.random.default_rng([seed, number, OTHER]).permutation(kinds)[: settings.others]
    others = [replace(drawn, things=(replace(thing, kind=str(kind)),)) for kind in chosen]

    def say(some: Scene, colour: float) -> str:
        return caption(some, np.random.default_rng([seed, number, WORDS]), said={**SAID, "colour": colour}).text

    coloured, plain = (tuple(say(other, colour) for other in others) for colour in (1, 0))
    return Composition(say(drawn, 1), say(drawn, 0), coloured, plain)


def imagine(
    settings: ImaginedConfig, unet: UNet, encode: Encode, objective: Objective, shape: Sequence[int], folder: Path
) -> Imagined:
    """The composed pictures, latents of this shape [C, h, w]; kept in the folder for when the run is resumed."""
    said = compositions(settings)
    key = hashlib.sha256(f"{settings} {hash_tensors(unet.state_dict())}".encode()).hexdigest()
    path = folder / f"imagined-{key[:16]}.safetensors"
    if path.is_file():
        latents = load_file(path)["latents"]
    else:
        log.info("Composing %d pictures of pairs that no scene shows.", settings.count)
        parts = [
            _composed(settings, unet, objective, encode, said[at : at + CHUNK], shape, at)
            for at in range(0, len(said), CHUNK)
        ]
        latents = torch.cat(parts).contiguous()  # not channels last, which no file has
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".writing")
        save_file({"latents": latents}, aside)
        aside.rename(path)
    return Imagined([each.whole for each in said], latents, settings.share)


@torch.no_grad()
def _composed(
    settings: ImaginedConfig,
    unet: UNet,
    objective: Objective,
    encode: Encode,
    said: Sequence[Composition],
    shape: Sequence[int],
    first: int,
) -> Tensor:
    count, others = len(said), settings.others
    told = [[""] * count, [each.kind for each in said]]
    told += [[each.coloured[at] for each in said] for at in range(others)]
    told += [[each.others[at] for each in said] for at in range(others)]
    if settings.itself:
        told.append([each.whole for each in said])
    context = torch.cat([encode(texts) for texts in told])

    def network(x: Tensor, timestep: Tensor) -> Tensor:
        found = unet(x[:count].repeat(len(told), 1, 1, 1), timestep[:1].expand(len(context)), context).float()
        nothing, of_kind, *rest = found.chunk(len(told))
        of_colour = torch.stack(rest[:others]).mean(0) - torch.stack(rest[others : 2 * others]).mean(0)
        composed = of_kind + settings.colour * of_colour
        return torch.cat([nothing, torch.lerp(composed, rest[-1], settings.itself) if settings.itself else composed])

    sigmas = trailing(objective.schedule, settings.steps)
    generator = torch.Generator().manual_seed(settings.seed + first)
    noise = torch.randn(count, *shape, generator=generator).to(context.device)
    x = noise * (1 + sigmas[0] ** 2) ** 0.5
    denoise = denoiser(network, objective.schedule, objective.prediction)
    drawn = [step.x for step in euler(guide_doubled(denoise, settings.guidance), x, sigmas, lambda index: noise)]
    return drawn[-1].cpu()
