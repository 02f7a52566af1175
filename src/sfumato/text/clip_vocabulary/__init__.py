"""CLIP's published vocabulary, which every Stable Diffusion was trained with: single-file checkpoints leave it out.

`merges.txt.gz` holds the 48,894 merges of OpenAI's `bpe_simple_vocab_16e6.txt.gz` (github.com/openai/CLIP) that CLIP
uses, in their order; the 49,408 tokens follow from them. MIT licence, in the file LICENSE beside it.
"""

import gzip
from functools import cache
from importlib import resources

from sfumato.text.tokenizer import Tokenizer
from sfumato.text.vocabulary import END, END_OF_WORD, START, Merge, byte_symbols

SIZE = 49408


@cache
def clip_merges() -> tuple[Merge, ...]:
    """Return CLIP's merges, most frequent first."""
    packed = resources.files(__name__).joinpath("merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    pairs = (line.split(" ") for line in lines[1:])
    return tuple((left, right) for left, right in pairs)


@cache
def clip_vocab() -> dict[str, int]:
    """Return CLIP's vocabulary, token -> id: the 256 byte symbols, the same ending a word, merges, specials."""
    symbols = byte_symbols()
    merged = (left + right for left, right in clip_merges())
    tokens = [*symbols, *(symbol + END_OF_WORD for symbol in symbols), *merged, START, END]
    return {token: index for index, token in enumerate(tokens)}


def clip_tokenizer(pad: str = END) -> Tokenizer:
    """Return CLIP's tokenizer. SD 1.x pads with the end token, SD 2.x and SDXL's second tower with "!" (id 0)."""
    return Tokenizer(clip_vocab(), clip_merges(), specials={"pad_token": pad})
