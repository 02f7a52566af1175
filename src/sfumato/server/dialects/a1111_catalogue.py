"""What there is to name in A1111's words: checkpoints by title, file or hash, VAEs, LoRAs, embeddings and styles."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from sfumato.metadata import upscaler_label
from sfumato.request import LATENT_UPSCALERS, PIXEL_UPSCALERS, checked_upscaler
from sfumato.server.dialects.a1111_fields import refuse
from sfumato.server.problems import Problem
from sfumato.server.values import ModelCard
from sfumato.wording import Style

_HASH = re.compile(r"\[([0-9a-f]{8,64})\]\s*$")


@dataclass(frozen=True)
class Catalogue:
    """The files that there are: models as the service lists them, others as name -> what a request calls them.

    `titled` gives the model that a title means whose hash is that of its file.
    """

    models: Sequence[ModelCard] = ()
    vaes: Mapping[str, str] = field(default_factory=dict)
    loras: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    styles: Mapping[str, Style] = field(default_factory=dict)
    titled: Callable[[str], str | None] = lambda title: None
    controls: Mapping[str, str] = field(default_factory=dict)
    upscalers: Mapping[str, str] = field(default_factory=dict)

    def model(self, checkpoint: object, *, field: str = "sd_model_checkpoint") -> ModelCard | None:
        """The model of a title, a name, a file or a hash; the default one for None and "". Raises Problem 404."""
        if checkpoint is None or checkpoint == "":
            return next((each for each in self.models if each.default), None)
        wanted = str(checkpoint).strip().lower()
        for each in self.models:
            if wanted in spellings(each):
                return each
        hashed = _HASH.search(wanted)
        short = hashed[1] if hashed else wanted
        if len(short) >= 8:
            for each in self.models:
                if each.hash and each.hash.startswith(short):
                    return each
        found = self.titled(str(checkpoint))
        for each in self.models:
            if each.name == found:
                return each
        known = ", ".join(title(each) for each in self.models)
        raise Problem(404, "model.unknown", f"Model not found: {checkpoint}; there are {known}", field=field)

    def vae(self, name: object) -> str | None:
        """The place of a VAE; None where the model's own is meant. Raises Problem 422."""
        if name in (None, "", "Automatic", "None", "auto"):
            return None
        for known, place in self.vaes.items():
            if str(name).lower() in (known.lower(), PurePath(known).stem.lower(), place.lower()):
                return place
        raise refuse("sd_vae", f"is {name!r}; there are Automatic, {', '.join(self.vaes)}".rstrip(", "))

    def upscaler(self, name: str) -> str:
        """The place of a network that enlarges, or one of the request's own ways. Raises Problem 422."""
        for known, place in self.upscalers.items():
            if name.lower() in _stems(known):
                return place
        way = checked_upscaler("hr_upscaler", name)
        if way in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS):
            return way
        there = ", ".join((*map(upscaler_label, (*LATENT_UPSCALERS, *PIXEL_UPSCALERS)), *self.upscalers))
        raise refuse("hr_upscaler", f"is {name!r}; there are {there}")


def _stems(name: str) -> tuple[str, str]:
    return name.lower(), PurePath(name).name.removesuffix(".safetensors").lower()


def title(card: ModelCard) -> str:
    """A model as A1111 lists checkpoints: a name and the beginning of a hash."""
    return f"{card.name} [{card.hash[:10]}]" if card.hash else card.name


def spellings(card: ModelCard) -> set[str]:
    """The names that a model goes by, in lower case."""
    file = PurePath(card.source or card.name).name
    names = {title(card), card.name, PurePath(card.name).name, file, PurePath(file).stem, card.hash, card.hash[:10]}
    return {name.lower() for name in names if name}
