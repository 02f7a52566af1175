"""Both readers on the same pictures, and their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from sfumato.evaluate.rows import LEARNED, RULES, Row, agreement, summarise
from sfumato.images import to_levels, to_pictures, to_pixels
from sfumato.scenes.captions import Caption
from sfumato.scenes.reader import Reader, Reading, embed, embedded_reader, read
from sfumato.scenes.render import render
from sfumato.scenes.rules import read_by_rules
from sfumato.scenes.scene import Scene
from sfumato.scenes.score import Score, score

CHUNK = 32  # pictures that are read together

T = TypeVar("T")

Read = Callable[[Tensor], list[Reading]]
"""What is in each picture of [B, 3, H, W] in [-1, 1]."""


@dataclass(frozen=True)
class Eyes:
    """The readers by name, the learned one first, and the features [B, D] of pictures [B, 3, H, W] for distances."""

    readers: Mapping[str, Read]
    features: Callable[[Tensor], Tensor]

    def look(self, pictures: Sequence[Image.Image]) -> dict[str, list[Reading]]:
        """What each reader sees in each picture."""
        return {name: _in_chunks(reader, pictures) for name, reader in self.readers.items()}

    def embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        """The features of pictures, [N, D]."""
        return torch.stack(_in_chunks(lambda pixels: list(self.features(pixels)), pictures))


def eyes(reader: Reader | None = None) -> Eyes:
    """The learned reader, the package's own unless given, and the one of rules."""
    learned = reader or embedded_reader()
    return Eyes({LEARNED: partial(read, learned), RULES: read_by_rules}, partial(embed, learned))


def scored(
    seen: Mapping[str, Sequence[Reading]], captions: Sequence[Caption], attributes: Sequence[str]
) -> dict[str, list[Score]]:
    """What each reader saw against the captions, in the attributes that count."""
    return {
        name: [score(reading, caption).only(attributes) for reading, caption in zip(readings, captions, strict=True)]
        for name, readings in seen.items()
    }


def rows(suite: str, source: str, scores: Mapping[str, Sequence[Score]]) -> list[Row]:
    """A row of each reader, and with two of them one of their agreement."""
    found = [summarise(suite, source, each, reader) for reader, each in scores.items()]
    return [*found, agreement(suite, source, *scores.values())] if len(scores) == 2 else found


def rendered(scenes: Sequence[Scene], side: int) -> list[Image.Image]:
    """The scenes' true pictures."""
    return [
        picture
        for at in range(0, len(scenes), CHUNK)
        for picture in to_pictures(to_levels(render(scenes[at : at + CHUNK], side)))
    ]


def _in_chunks(function: Callable[[Tensor], list[T]], pictures: Sequence[Image.Image]) -> list[T]:
    return [each for at in range(0, len(pictures), CHUNK) for each in function(to_pixels(pictures[at : at + CHUNK]))]
