"""Training a vocabulary: the invariants of byte-pair encoding, and CLIP's format."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from sfumato.errors import ConfigError, ModelFileError
from sfumato.text.clip_vocabulary import clip_merges, clip_tokenizer, clip_vocab
from sfumato.text.tokenizer import Tokenizer
from sfumato.text.vocabulary import Merge, read_merges, read_vocab, train_vocabulary

LINES = ["a red house on green grass", "two blue circles above a house", "It's a RED circle, isn't it?", "héllo 42"] * 3


def learned_slowly(words: Counter[str], limit: int) -> list[tuple[str, str]]:
    """Byte-pair encoding as Sennrich et al. 2016 state it: count all pairs anew for every merge."""
    split = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in split.values():
            index = 0
            while index + 1 < len(parts):
                if (parts[index], parts[index + 1]) == best:
                    parts[index : index + 2] = ["".join(best)]
                index += 1
    return merges


def test_merges_equal_counting_all_pairs_anew_every_time() -> None:
    lines = ["banana bandana anna", "aaaa aaa aaaaa", "the cat sat on the mat that the rat ate", "aaab baaa abab"]
    words = Counter(word for line in lines for word in line.split())
    assert train_vocabulary(lines, 514 + 40)[1] == learned_slowly(words, 40)


def test_the_vocabulary_has_clips_order_and_no_more_tokens_than_asked() -> None:
    vocab, merges = train_vocabulary(LINES, 540)
    tokens = list(vocab)
    assert [vocab[token] for token in tokens] == list(range(540))
    assert tokens[0] == "!"
    assert tokens[256] == "!</w>"
    assert tokens[512:538] == ["".join(merge) for merge in merges]
    assert tokens[538:] == ["<|startoftext|>", "<|endoftext|>"]


def test_frequent_words_become_one_token_and_unseen_text_survives() -> None:
    vocab, merges = train_vocabulary(LINES, 2000)
    tokenizer = Tokenizer(vocab, merges)
    assert len(vocab) < 2000  # every word is one token before the room is used up
    assert [tokenizer.token(index) for index in tokenizer.encode("a Red  house")] == ["a</w>", "red</w>", "house</w>"]
    unseen = "xyzzy 😀 שלום"
    assert tokenizer.decode(tokenizer.encode(unseen)) == unseen


def test_a_size_without_room_for_bytes_and_specials_is_refused() -> None:
    assert len(train_vocabulary(LINES, 514)[0]) == 514
    with pytest.raises(ConfigError, match="513"):
        train_vocabulary(LINES, 513)


def test_a_trained_and_saved_tokenizer_gives_the_same_ids_in_transformers(tmp_path: Path) -> None:
    tokenizer = Tokenizer(*train_vocabulary(LINES, 560))
    tokenizer.save(tmp_path)
    reference = CLIPTokenizer.from_pretrained(tmp_path)
    assert reference.model_max_length == 77
    for text in [*LINES, "an unseen zebra 😀", "<|endoftext|> x", ""]:
        expected = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
        padded = expected + [tokenizer.pad] * (77 - len(expected))
        assert reference(text, padding="max_length", max_length=77, truncation=True).input_ids == padded


@pytest.mark.parametrize("content", ["not json", "[1]", "{}", '{"a": "b"}', '{"a": 1, "b": 1}', '{"a": -1}'])
def test_a_file_that_is_no_vocabulary_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(ModelFileError, match=r"vocab\.json"):
        read_vocab(path)


def test_merges_name_the_line_that_is_wrong_and_allow_other_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_bytes("#version: 0.2\r\na b\r\nab \u0120</w>\r\n".encode())
    assert read_merges(path) == [("a", "b"), ("ab", "\u0120</w>")]
    path.write_text("#version: 0.2\na b\na b c\n")
    with pytest.raises(ModelFileError, match="line 3"):
        read_merges(path)


def test_a_merge_outside_the_vocabulary_is_refused() -> None:
    vocab, _ = train_vocabulary(LINES, 514)
    with pytest.raises(ConfigError, match="merges"):
        Tokenizer(vocab, [("q", "q")])


def test_specials_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(ConfigError, match="startoftext"):
        Tokenizer(json.loads('{"a": 0, "<|endoftext|>": 1}'), [])


def test_the_bundled_vocabulary_is_the_one_that_clip_was_trained_with(
    clip_vocabulary: tuple[dict[str, int], list[Merge]],
) -> None:
    assert (clip_vocab(), list(clip_merges())) == clip_vocabulary
    sd2 = clip_tokenizer(pad="!")
    assert (len(sd2), sd2.eos, sd2.pad) == (49408, 49407, 0)
