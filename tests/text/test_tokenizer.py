"""The tokenizer against transformers' CLIPTokenizer, the reference, on CLIP ViT-L/14's vocabulary."""

import json
import random
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
from transformers import CLIPTokenizer

from sfumato.errors import ConfigError, ModelFileError, PromptError
from sfumato.text.tokenizer import Tokenizer

ASTRONAUT = "a photograph of an astronaut riding a horse"
ASTRONAUT_IDS = [320, 8853, 539, 550, 18376, 6765, 320, 4558]  # CompVis/stable-diffusion, with CLIP ViT-L/14

AWKWARD = [
    "",
    " ",
    "\t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000",
    "a\u00a0b\u3000c\u200bd\ufeffe\u2060f",
    "🐎👩\u200d🚀👨\u200d👩\u200d👧\u200d👦🏳️\u200d🌈🇨🇭👍🏽",
    "סוס לבן רץ",
    "حصان أبيض \u202bيركض\u202c",
    "&amp;lt;b&amp;gt; &quot;caf&eacute;&quot; &#128014; &nbsp; &",
    "<b>bold</b> <|startoftext|>in<|endoftext|> <|ENDOFTEXT|> <|endoftext|",
    "e\u0301 é e\u0301\u0323\u0307 Z\u0351\u036b\u0343a\u030a\u0328lgo " + "\u0300" * 300,
    "café CAFÉ İstanbul ŞİŞE ß ẞ ǅ ﬁ Å Σς ΣΑΣ",
    "１２３ ¾ ⅷ ٣ 1234567890 3.14159 1e-5 0x7f 12:34 1,000,000",
    "don't I'll you've we're he'd I'm it's IT'S 'tis ''s '' '!'s",
    "antidisestablishmentarianism" * 20,
    "a" * 5000,
    "!?!?...---___///\\\\ ((a:1.2)) [b] {c|d} <lora:x:1> #$%^*+=~`",
    "汉字 漢字 かな カナ 한글 ไทย देवनागरी",
    "\x01\x02\x1b[31m\x7f\x80\x9f\xad\ufffd\ufffe\uffff\U0010ffff\ue000",
    "a!b! ! !!! hello! 50%! !important",
    "under_score CamelCase kebab-case e-mail@example.org https://example.org/?q=1&r=2#s",
]


def random_texts(count: int, seed: int) -> list[str]:
    """Strings of words, digits, marks, spaces and any other characters; no NUL, no surrogates."""
    chooser = random.Random(seed)
    ranges = [(1, 127), (128, 0x24F), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0xDFF), (0x2000, 0x206F)]
    ranges += [(0x2190, 0x27BF), (0x3040, 0x9FFF), (0xAC00, 0xD7A3), (0xFB00, 0xFFFF), (0x1F300, 0x1FAFF)]
    words = [
        *["a", "the", "of", "red", "horse", "RIDING", "photo;", "4k,", "(best:1.2)", "<|endoftext|>", "it's"],
        *AWKWARD[:9],
    ]

    def piece() -> str:
        kind = chooser.randrange(6)
        if kind == 0:
            return chooser.choice(words)
        if kind == 1:
            return chooser.choice(" \t\n\u00a0\u3000\u200b") * chooser.randrange(1, 4)
        if kind == 2:
            return "".join(chooser.choices("abcdefghijklmnopqrstuvwxyzABCXYZ'", k=chooser.randrange(1, 40)))
        if kind == 3:
            return "".join(chooser.choices("0123456789.,:%!?&;#'\"()[]", k=chooser.randrange(1, 12)))
        low, high = chooser.choice(ranges) if kind == 4 else (0x10000, 0x10FFFF)
        return "".join(chr(chooser.randint(low, high)) for _ in range(chooser.randrange(1, 8)))

    return ["".join(piece() for _ in range(chooser.randrange(1, 12))) for _ in range(count)]


def reference_ids(reference: CLIPTokenizer, texts: list[str]) -> list[list[int]]:
    return list(reference(texts, add_special_tokens=False).input_ids)


def clip_copy(clip_folder: Path, folder: Path, **files: object) -> Path:
    """A folder with CLIP's vocabulary and the named JSON files beside it."""
    for name in ("vocab.json", "merges.txt"):
        (folder / name).symlink_to(clip_folder / name)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


# What the published folders hold: SD 1.5's, and SD 2.1's, whose pad token stands in special_tokens_map.json alone.
NORMALIZED = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
START = {"content": "<|startoftext|>", **NORMALIZED}
END = {"content": "<|endoftext|>", **NORMALIZED}
CONFIG = {
    "add_prefix_space": False,
    "bos_token": {"__type": "AddedToken", **START},
    "do_lower_case": True,
    "eos_token": {"__type": "AddedToken", **END},
    "errors": "replace",
    "model_max_length": 77,
    "pad_token": "<|endoftext|>",
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": {"__type": "AddedToken", **END},
}
SPECIALS = {"bos_token": START, "eos_token": END, "pad_token": "<|endoftext|>", "unk_token": END}


def test_the_known_ids(clip: Tokenizer) -> None:
    assert clip.encode(ASTRONAUT) == ASTRONAUT_IDS
    assert (clip.bos, clip.eos, clip.pad, clip.max_length, len(clip)) == (49406, 49407, 49407, 77, 49408)
    assert clip.decode([clip.bos, *ASTRONAUT_IDS, clip.eos]) == f"<|startoftext|>{ASTRONAUT} <|endoftext|>"
    assert [clip.token(index) for index in ASTRONAUT_IDS[:2]] == ["a</w>", "photograph</w>"]
    assert clip.id("horse</w>") == 4558
    assert clip.id("no such token") is None
    with pytest.raises(ValueError, match="49408"):
        clip.token(49408)


def test_ids_equal_transformers_on_10000_random_and_awkward_strings(clip: Tokenizer, clip_folder: Path) -> None:
    texts = [*AWKWARD, *random_texts(10_000 - len(AWKWARD), seed=20260101)]
    expected = reference_ids(CLIPTokenizer.from_pretrained(clip_folder), texts)
    different = [text for text, ids in zip(texts, expected, strict=True) if clip.encode(text) != ids]
    assert different == []


def test_published_folders_of_sd1_and_sd2_give_the_references_ids_and_pads(clip_folder: Path, tmp_path: Path) -> None:
    texts = [*AWKWARD, *random_texts(300, seed=2)]
    for name, pad, pad_id in (("sd1", "<|endoftext|>", 49407), ("sd2", "!", 0)):
        folder = tmp_path / name
        folder.mkdir()
        clip_copy(clip_folder, folder, tokenizer_config=CONFIG, special_tokens_map={**SPECIALS, "pad_token": pad})
        tokenizer, reference = Tokenizer.from_folder(folder), CLIPTokenizer.from_pretrained(folder)
        assert (tokenizer.pad, reference.pad_token_id) == (pad_id, pad_id)
        assert [tokenizer.encode(text) for text in texts] == reference_ids(reference, texts)
        assert tokenizer.max_length == reference.model_max_length == 77
        padded = reference(ASTRONAUT, padding="max_length", max_length=77).input_ids
        assert padded == [49406, *ASTRONAUT_IDS, 49407, *[pad_id] * 67]


def test_an_exclamation_mark_is_the_pad_id_where_it_is_the_pad_token(clip: Tokenizer, clip_folder: Path) -> None:
    merges = [tuple(line.split(" ")) for line in (clip_folder / "merges.txt").read_text("utf-8").split("\n")[1:-1]]
    vocab = json.loads((clip_folder / "vocab.json").read_text("utf-8"))
    sd2 = Tokenizer(vocab, [(left, right) for left, right in merges], specials={"pad_token": "!"})
    assert clip.encode("wow!!") == [clip.id("wow</w>"), clip.id("!!</w>")]
    assert sd2.encode("wow!!") == [clip.id("wow</w>"), 0, 0]


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!", "<pad>"])
def test_a_saved_folder_is_the_same_tokenizer_here_and_in_transformers(
    clip_folder: Path, tmp_path: Path, pad: str
) -> None:
    source, saved, again = tmp_path / "source", tmp_path / "saved", tmp_path / "again"
    source.mkdir()
    specials = {**SPECIALS, "pad_token": pad}
    clip_copy(clip_folder, source, tokenizer_config=CONFIG, special_tokens_map=specials)
    ours = Tokenizer.from_folder(source)
    ours.save(saved)
    reference = CLIPTokenizer.from_pretrained(saved)
    reference.save_pretrained(again)  # transformers' own folder: tokenizer.json, and added_tokens_decoder
    assert (again / "tokenizer.json").is_file()
    texts = [*AWKWARD, *random_texts(200, seed=3), f"a {pad} b"]
    expected = reference_ids(CLIPTokenizer.from_pretrained(source), texts)
    assert reference_ids(reference, texts) == expected
    for tokenizer in (ours, Tokenizer.from_folder(saved), Tokenizer.from_folder(again)):
        assert [tokenizer.encode(text) for text in texts] == expected
        assert (tokenizer.pad, tokenizer.max_length) == (reference.pad_token_id, 77)


def test_a_tokenizer_json_alone_is_the_same_tokenizer(clip: Tokenizer, clip_folder: Path, tmp_path: Path) -> None:
    CLIPTokenizer.from_pretrained(clip_folder).save_pretrained(tmp_path)
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert [tokenizer.encode(text) for text in AWKWARD] == [clip.encode(text) for text in AWKWARD]


def test_added_tokens_are_whole_and_keep_their_ids(clip_folder: Path, tmp_path: Path) -> None:
    reference = CLIPTokenizer.from_pretrained(clip_folder)
    reference.add_tokens(["<cat-toy>", "Sks"])
    reference.save_pretrained(tmp_path)
    text = "a <cat-toy> and a sks dog, <CAT-TOY>, risks"
    expected = reference_ids(reference, [text])[0]
    assert 49408 in expected
    assert Tokenizer.from_folder(tmp_path).encode(text) == expected
    older = tmp_path / "older"
    older.mkdir()
    clip_copy(clip_folder, older, added_tokens={"<cat-toy>": 49408, "Sks": 49409})
    assert Tokenizer.from_folder(older).encode(text) == expected
    Tokenizer.from_folder(older).save(tmp_path / "saved")
    assert reference_ids(CLIPTokenizer.from_pretrained(tmp_path / "saved"), [text])[0] == expected


def test_ordinary_captions_equal_open_clips_own_tokenizer(clip: Tokenizer) -> None:
    captions = [
        ASTRONAUT,
        "A red house, on green grass; it's 3 pm!",
        "Portrait of a café owner -- 1920s (oil)",
        "x" * 60,
    ]
    for caption in captions:
        assert clip.encode(caption) == open_clip.tokenizer.SimpleTokenizer().encode(caption)


def test_html_entities_stay_text_as_in_the_reference_not_in_open_clip(clip: Tokenizer) -> None:
    assert clip.decode(clip.encode("salt &amp; pepper")) == "salt & amp ; pepper"


@pytest.mark.parametrize(("text", "found"), [("a\0b", "position 1"), ("\ud83d!", r"U\+D83D at position 0")])
def test_nul_and_half_surrogates_are_refused(clip: Tokenizer, text: str, found: str) -> None:
    with pytest.raises(PromptError, match=found) as caught:
        clip.encode(text)
    assert caught.value.field == "prompt"


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"neither tokenizer\.json nor vocab\.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("tokenizer", "[]", ModelFileError),
        ("tokenizer", '{"model": {"type": "WordPiece", "vocab": {}}}', ConfigError),
        ("tokenizer", '{"model": {"end_of_word_suffix": "</w>", "vocab": {"a": 0}, "merges": ["a"]}}', ModelFileError),
        ("tokenizer_config", '{"model_max_length": "long"}', ConfigError),
        ("tokenizer_config", '{"pad_token": 7}', ModelFileError),
        ("tokenizer_config", '{"added_tokens_decoder": {"49408": 7}}', ModelFileError),
        ("tokenizer_config", '{"added_tokens_decoder": {"50000": {"content": "<far>"}}}', ConfigError),
        ("special_tokens_map", '{"bos_token": "<none>"}', ConfigError),
        ("special_tokens_map", "[]", ModelFileError),
        ("added_tokens", '{"<cat>": "49408"}', ModelFileError),
    ],
)  # fmt: skip
def test_files_that_cannot_be_a_clip_tokenizer_are_refused(
    clip_folder: Path, tmp_path: Path, name: str, content: str, error: type[Exception]
) -> None:
    clip_copy(clip_folder, tmp_path)
    (tmp_path / f"{name}.json").write_text(content)
    with pytest.raises(error):
        Tokenizer.from_folder(tmp_path)


def test_a_length_that_transformers_did_not_know_is_clips(clip_folder: Path, tmp_path: Path) -> None:
    clip_copy(clip_folder, tmp_path, tokenizer_config={"model_max_length": 1000000000000000019884624838656})
    assert Tokenizer.from_folder(tmp_path).max_length == 77


def test_tokenizer_and_prompt_do_not_import_torch() -> None:
    code = "import sys, sfumato.text.prompt, sfumato.text.tokenizer; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
