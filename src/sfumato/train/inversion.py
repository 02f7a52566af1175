"""Textual inversion: a new word is learnt, as vectors of a text encoder's table; all else stays as it is.

Gal et al. 2022. In SDXL the word has vectors in both encoders' tables.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.errors import ConfigError, OutputError
from sfumato.nn.clip import TextEncoder
from sfumato.nn.embeddings import Rows, learning
from sfumato.text.tokenizer import Tokenizer
from sfumato.train.config import TrainConfig, build, choice
from sfumato.train.denoising import Denoising
from sfumato.train.foundation import Foundation, whole_model
from sfumato.weights.embeddings import (
    EMBEDDING_DIALECTS,
    MOST,
    EmbeddingDialect,
    WordVectors,
    load_embedding,
    save_embedding,
)
from sfumato.weights.lora import networks_of
from sfumato.weights.opened import text_names

LOOKED_AT = 1000  # captions in which the word is looked for before the run


@dataclass(frozen=True, kw_only=True)
class InversionConfig:
    """`token` is the new word, which captions say; it becomes `vectors` tokens.

    They begin as the embeddings of the words in `initial`, around again where those are fewer, or as the mean of the
    whole table without. `dialect`: how the file names them, diffusers or kohya; SDXL's pair is the same in both.
    """

    token: str
    vectors: int = 1
    initial: str = ""
    dialect: str = "diffusers"


class InversionTask(Denoising):
    """The recipe. `start.model` names the model."""

    def __init__(self, config: TrainConfig) -> None:
        self.settings = read_settings(config)
        self.rows: dict[str, Rows] = {}
        super().__init__(config)

    def prepared(self, base: Foundation) -> Foundation:
        model, word = whole_model(base), self.settings.token
        for network in networks_of(model).values():
            network.requires_grad_(False)
        tokenizers, encoders = [], []
        for name, tokenizer, encoder in zip(
            text_names(model.family.text), base.text.tokenizers, base.text.encoders, strict=True
        ):
            self.rows[name] = Rows(first_vectors(self.settings, tokenizer, encoder))
            tokenizers.append(tokenizer.with_word(word, self.settings.vectors))
            encoders.append(learning(encoder, self.rows[name], len(tokenizer), tokenizer.eos))
        self._check_captions()
        return replace(base, text=replace(base.text, tokenizers=tuple(tokenizers), encoders=tuple(encoders)))

    def _check_captions(self) -> None:
        count = min(LOOKED_AT, self.samples.length)
        said = self.samples.captions(range(count), range(count))
        if not any(self.settings.token.lower() in text.lower() for text in said):
            raise ConfigError(
                f"None of the captions has the word {self.settings.token!r}, first {said[0]!r}; for pictures without "
                f"captions set data.caption = 'a photo of {self.settings.token}'."
            )

    @property
    def networks(self) -> dict[str, nn.Module]:
        return dict(self.rows)

    @property
    def text_is_trained(self) -> bool:
        return True

    def export(self, folder: Path) -> None:
        """Writes one file, called as the word for programs that go by that, and reads it again."""
        dialect: EmbeddingDialect = next(each for each in EMBEDDING_DIALECTS if each == self.settings.dialect)
        vectors = tuple(rows.vectors.detach().cpu() for rows in self.rows.values())
        path = folder / f"{file_stem(self.settings.token)}.safetensors"
        save_embedding(path, WordVectors(self.settings.token, vectors), dialect=dialect, overwrite=True)
        found = load_embedding(path).vectors
        if not all(torch.equal(one, other) for one, other in zip(vectors, found, strict=True)):
            raise OutputError(f"{path} does not hold what was written; is the disk failing?")


def read_settings(config: TrainConfig) -> InversionConfig:
    """The section [inversion]. Raises ConfigError for what cannot be, before any work."""
    settings = build(InversionConfig, config.inversion, "inversion")
    if "model" not in config.start:
        raise ConfigError('start.model must name the model that learns the word: a path, a name, or "embedded".')
    if not settings.token or settings.token.split() != [settings.token]:
        raise ConfigError(
            f"inversion.token is a word without white space, such as '<my-cat>'; found {settings.token!r}."
        )
    if not 1 <= settings.vectors <= MOST:
        raise ConfigError(f"inversion.vectors is {settings.vectors}; it is from 1 to {MOST}, the room in a prompt.")
    choice("inversion.dialect", settings.dialect, EMBEDDING_DIALECTS)
    if config.run.shard:
        raise ConfigError("run.shard divides large networks; a word is small: leave it out.")
    return settings


def undecayed(config: TrainConfig) -> TrainConfig:
    """The configuration without weight decay, which would draw the vectors away from where words are."""
    return replace(config, optimizer=replace(config.optimizer, weight_decay=0.0))


@torch.no_grad()
def first_vectors(settings: InversionConfig, tokenizer: Tokenizer, encoder: TextEncoder) -> Tensor:
    """Where the vectors begin, [n, D]. Raises ConfigError for an initial word without any token."""
    table = encoder.text_model.embeddings.token_embedding.weight
    if not settings.initial:
        return table.float().mean(0, keepdim=True).expand(settings.vectors, -1)
    ids = tokenizer.encode(settings.initial)
    if not ids:
        raise ConfigError(
            f"inversion.initial is {settings.initial!r}, which has no token; name a word, or leave it out."
        )
    return table[[ids[number % len(ids)] for number in range(settings.vectors)]].float()


def file_stem(word: str) -> str:
    """The word as a file's name: what is neither letter, digit, dash nor underscore is left out."""
    return re.sub(r"[^\w-]", "", word) or "embedding"
