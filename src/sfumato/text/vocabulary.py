"""The vocabulary of CLIP's byte-pair encoding: its two files, how a text becomes symbols, and how to train a small one.

A vocabulary is two things: `vocab`, token -> id, and `merges`, the pairs of tokens that are joined, most frequent
first. Both are over *symbols*: one printable character for each of the 256 bytes, the last of a word with `</w>`.
Sennrich et al. 2016; byte-level alphabet: Radford et al. 2019; CLIP's order and end of word: Radford et al. 2021.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

from sfumato.errors import ConfigError, ModelFileError, reason

Merge = tuple[str, str]

START = "<|startoftext|>"
END = "<|endoftext|>"
END_OF_WORD = "</w>"

# CLIP's own pattern (openai/CLIP, simple_tokenizer.py): specials, English contractions, a run of letters, one digit,
# a run of anything else that is not space.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def normalizer() -> normalizers.Normalizer:
    """What CLIP does to a text before it is cut into words: NFC, one space for each run of white space, lower case."""
    return normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()],
    )


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """How CLIP cuts a normalized text into words, each then written in byte symbols."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def byte_symbols() -> list[str]:
    """The 256 symbols that stand for bytes, in the order of CLIP's ids: "!" is 0."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def read_vocab(path: Path) -> dict[str, int]:
    """Token -> id from a `vocab.json`. Raises ModelFileError if it is not one."""
    return check_vocab(read_json(path), path)


def check_vocab(vocab: object, path: Path) -> dict[str, int]:
    """The same vocabulary, once it is a map of tokens to distinct ids from 0. Raises ModelFileError otherwise."""
    if not isinstance(vocab, dict) or not vocab or not all(type(value) is int for value in vocab.values()):
        raise ModelFileError(f"{path} is not a vocabulary: a JSON object that maps each token to its id is needed.")
    if min(vocab.values()) < 0 or len(set(vocab.values())) != len(vocab):
        raise ModelFileError(f"{path} is not a vocabulary: ids must be distinct and not negative.")
    return vocab


def read_merges(path: Path) -> list[Merge]:
    """The merges of a `merges.txt`, in order. Raises ModelFileError naming the first line that is not a pair."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} cannot be read as merges: {reason(error)}") from error
    merges = []
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if line.startswith("#version") or (not line and number == len(lines)):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise ModelFileError(f"{path} line {number}: two tokens and a space between them are needed, not {line!r}.")
        merges.append((pair[0], pair[1]))
    return merges


def read_json(path: Path) -> object:
    """The value in a JSON file. Raises ModelFileError if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {reason(error)}") from error


def write_vocabulary(folder: Path, vocab: dict[str, int], merges: Sequence[Merge]) -> None:
    """Write `vocab.json` and `merges.txt` into `folder`, which must exist, as transformers reads them."""
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8", newline="\n")


def train_vocabulary(lines: Iterable[str], size: int) -> tuple[dict[str, int], list[Merge]]:
    """The byte-pair vocabulary of `lines` with at most `size` tokens, in CLIP's format: (vocab, merges).

    The order of ids is CLIP's: 256 byte symbols, the same with `</w>`, one token a merge, then the two specials. There
    are fewer tokens than `size` when every word of `lines` has become one token. Ties go to the pair that sorts first,
    so the result depends on the words and their counts alone.
    Raises ConfigError if `size` has no room for the 512 symbols and 2 specials.
    """
    symbols = byte_symbols()
    base = [*symbols, *(symbol + END_OF_WORD for symbol in symbols)]
    if size < len(base) + 2:
        raise ConfigError(f"A vocabulary of {size} tokens is too small: the symbols and specials are {len(base) + 2}.")
    merges = _learn_merges(_count_words(lines), size - len(base) - 2)
    # Two merges may make the same token ("ab" + "c", "a" + "bc"): it has one id.
    tokens = dict.fromkeys([*base, *(left + right for left, right in merges), START, END])
    return {token: index for index, token in enumerate(tokens)}, merges


def _count_words(lines: Iterable[str]) -> Counter[str]:
    """How often each word, in byte symbols, occurs."""
    normalize, cut = normalizer(), pre_tokenizer()
    return Counter(word for line in lines for word, _ in cut.pre_tokenize_str(normalize.normalize_str(line)))


def _learn_merges(counts: Counter[str], limit: int) -> list[Merge]:
    """The most frequent merges, greedily, until they make `limit` different tokens or nothing is left to merge."""
    words = [[*word[:-1], word[-1] + END_OF_WORD] for word in counts]
    times = list(counts.values())
    frequency: Counter[Merge] = Counter()
    places: defaultdict[Merge, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            frequency[pair] += times[index]
            places[pair].add(index)
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapify(heap)
    merges: dict[Merge, None] = {}
    made: set[str] = set()
    while heap and len(made) < limit:
        count, pair = heappop(heap)
        if -count != frequency[pair]:  # superseded: the pair's present count is in the heap too, unless it is 0
            continue
        merges.setdefault(pair)
        made.add(pair[0] + pair[1])
        changed = set()
        for index in sorted(places.pop(pair)):
            for old in pairwise(words[index]):
                frequency[old] -= times[index]
                changed.add(old)
            words[index] = _joined(words[index], pair)
            for new in pairwise(words[index]):
                frequency[new] += times[index]
                places[new].add(index)
                changed.add(new)
        for other in changed:
            if frequency[other] > 0:
                heappush(heap, (-frequency[other], other))
    return list(merges)


def _joined(word: list[str], pair: Merge) -> list[str]:
    """The word with every occurrence of the pair, from the left, made one token."""
    result: list[str] = []
    index = 0
    while index < len(word):
        if index + 1 < len(word) and (word[index], word[index + 1]) == pair:
            result.append(word[index] + word[index + 1])
            index += 2
        else:
            result.append(word[index])
            index += 1
    return result
