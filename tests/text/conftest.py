"""CLIP ViT-L/14's vocabulary, made from the list that open_clip carries, and its tokenizer."""

import gzip
import importlib.util
from pathlib import Path

import pytest

from sfumato.text.tokenizer import Tokenizer
from sfumato.text.vocabulary import END, START, Merge, byte_symbols, write_vocabulary

CLIP_SIZE = 49408  # Radford et al. 2021: 256 bytes, 256 ends of words, 48894 merges, 2 specials


@pytest.fixture(scope="session")
def clip_vocabulary() -> tuple[dict[str, int], list[Merge]]:
    specification = importlib.util.find_spec("open_clip")
    assert specification is not None and specification.origin is not None
    packed = Path(specification.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : CLIP_SIZE - 2 - 512 + 1])]
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges), START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


@pytest.fixture(scope="session")
def clip_folder(clip_vocabulary: tuple[dict[str, int], list[Merge]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but CLIP's `vocab.json` and `merges.txt`."""
    folder = tmp_path_factory.mktemp("clip")
    write_vocabulary(folder, *clip_vocabulary)
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> Tokenizer:
    return Tokenizer.from_files(clip_folder / "vocab.json", clip_folder / "merges.txt")
