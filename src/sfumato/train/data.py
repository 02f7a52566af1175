"""Training data as a numbered set of samples: the drawn world, or a folder of pictures with captions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sfumato.errors import ConfigError, DataError
from sfumato.scenes.captions import Caption, caption
from sfumato.scenes.render import render
from sfumato.scenes.scene import Scene, scene
from sfumato.train.config import DataConfig

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
CAPTION_SUFFIXES = (".txt", ".caption")


class Samples(Protocol):
    """A numbered set of pictures with captions. `length` 0 is endless."""

    length: int

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Pictures [B, 3, size, size] in [-1, 1], float32, on the CPU."""
        ...

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        """A caption of each; where there are several, `draws` (any integers) choose."""
        ...


class World:
    """Scenes of the drawn world, number by number."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.length = config.pool

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """The scenes themselves, for recipes that are taught more than pictures and words."""
        return [scene(self.config.seed, index, counts=self.config.counts) for index in indices]

    def pictures(self, indices: Sequence[int]) -> Tensor:
        return render(self.scenes(indices), self.config.size)

    def described(self, scenes: Sequence[Scene], draws: Sequence[int]) -> list[Caption]:
        """Captions with what they claim."""
        return [caption(drawn, np.random.default_rng(draw)) for drawn, draw in zip(scenes, draws, strict=True)]

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        return [described.text for described in self.described(self.scenes(indices), draws)]


class Folder:
    """Pictures in a folder and its subfolders, captioned by `metadata.jsonl` (file_name, text: one or several) or by
    a `.txt` or `.caption` of the same stem. Scaled to cover a square of `size` pixels and cropped in the middle.

    Raises DataError, before anything is trained, for pictures without captions, captions without pictures, and
    pictures that cannot be opened.
    """

    def __init__(self, config: DataConfig) -> None:
        root = Path(config.source)
        if not root.is_dir():
            raise DataError(f"data.source {config.source!r} is neither 'world' nor a folder.")
        self.size = config.size
        metadata = root / "metadata.jsonl"
        self.items = _from_metadata(metadata) if metadata.exists() else _from_stems(root)
        if not self.items:
            raise DataError(f"{root} holds no pictures ({', '.join(SUFFIXES)}).")
        for path, _ in self.items:
            _check(path)
        if config.pool > len(self.items):
            raise DataError(f"data.pool is {config.pool}, but {root} holds {len(self.items)} pictures.")
        self.length = config.pool or len(self.items)

    def pictures(self, indices: Sequence[int]) -> Tensor:
        arrays = [_load(self.items[index][0], self.size) for index in indices]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def captions(self, indices: Sequence[int], draws: Sequence[int]) -> list[str]:
        choices = [self.items[index][1] for index in indices]
        return [texts[draw % len(texts)] for texts, draw in zip(choices, draws, strict=True)]


def open_samples(config: DataConfig) -> World | Folder:
    """The samples that a configuration names."""
    if config.size % 8:
        raise ConfigError(f"data.size must be a multiple of 8, found {config.size}.")
    return World(config) if config.source == "world" else Folder(config)


def shown(samples: Samples, count: int) -> list[int]:
    """The indices that a contact sheet shows: the first `count`, from the start again where there are fewer."""
    return [index % samples.length if samples.length else index for index in range(count)]


def _from_metadata(path: Path) -> list[tuple[Path, list[str]]]:
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: needs JSON with file_name and text ({error!r}).") from error
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise DataError(f"{path}, line {number}: {name!r} has no caption.")
        picture = (path.parent / name).resolve()
        if not picture.is_relative_to(path.parent.resolve()):
            raise DataError(f"{path}, line {number}: {name!r} lies outside the folder.")
        if not picture.is_file():
            raise DataError(f"{path}, line {number}: there is no picture {name!r}.")
        items.append((picture, texts))
    return items


def _from_stems(root: Path) -> list[tuple[Path, list[str]]]:
    items, bare = [], []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
        captions = [path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES if path.with_suffix(suffix).is_file()]
        text = captions[0].read_text(encoding="utf-8").strip() if captions else ""
        if text:
            items.append((path, [text]))
        else:
            bare.append(path.name)
    if bare:
        raise DataError(
            f"{len(bare)} pictures in {root} have no caption, first {bare[0]!r}: "
            "each needs a .txt of the same stem, or the folder a metadata.jsonl."
        )
    return items


def _check(path: Path) -> None:
    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error


def _load(path: Path, size: int) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))
