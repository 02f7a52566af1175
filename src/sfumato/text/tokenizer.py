"""CLIP's tokenizer: text <-> ids, from the files that Stable Diffusion models carry.

The reference is transformers' `CLIPTokenizer`, which diffusers uses: no ftfy and no HTML unescaping, unlike OpenAI's
and OpenCLIP's own scripts, so "&amp;" is five characters of text. The specials count too: a tokenizer whose pad token
is "!" (SD 2.x and the second of SDXL) reads every "!" of a prompt as id 0, because the reference does.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from sfumato.errors import ConfigError, ModelFileError, PromptError
from sfumato.text.vocabulary import (
    END,
    END_OF_WORD,
    START,
    Merge,
    check_vocab,
    normalizer,
    pre_tokenizer,
    read_json,
    read_merges,
    read_vocab,
    write_vocabulary,
)

# Where a position table ends when the files do not say: CLIP's context length, Radford et al. 2021.
CONTEXT_LENGTH = 77

# In the reference's order: of two specials with the same text, the flags of the first hold.
_SPECIALS = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}


class Tokenizer:
    """Text -> ids and back. Immutable; the same text always gives the same ids.

    `max_length` counts the two specials that stand around every chunk, so a chunk holds `max_length - 2` ids of text.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[Merge],
        *,
        specials: Mapping[str, str | AddedToken] | None = None,
        added: Mapping[int, AddedToken] | None = None,
        max_length: int = CONTEXT_LENGTH,
    ) -> None:
        """A tokenizer of this vocabulary.

        `specials` may name bos_token, eos_token, pad_token and unk_token; `added` are whole-word tokens beside the
        merges, by id. Raises ConfigError if a merge or a special is not in the vocabulary, or an id does not fit.
        """
        if max_length < 3:
            raise ConfigError(
                f"A tokenizer's max_length is {max_length}; there must be room for one token: at least 3."
            )
        self.max_length = max_length
        self._vocab = dict(vocab)
        self._merges = tuple(merges)
        self._specials = {**_SPECIALS, **(specials or {})}
        self._backend = self._build(added or {})
        self._runs = _runs(self._backend.get_added_tokens_decoder())
        self.bos = self._special_id("bos_token")
        self.eos = self._special_id("eos_token")
        self.pad = self._special_id("pad_token")
        self._special_id("unk_token")

    def _special_id(self, name: str) -> int:
        token = str_of(self._specials[name])
        index = self.id(token)
        if index is None:
            raise ConfigError(f"The vocabulary has no {name} {token!r}; the tokenizer's files do not belong together.")
        return index

    def _build(self, added: Mapping[int, AddedToken]) -> Backend:
        try:
            model = models.BPE(
                vocab=self._vocab,
                merges=list(self._merges),
                continuing_subword_prefix="",
                end_of_word_suffix=END_OF_WORD,
                fuse_unk=False,
                unk_token=str_of(self._specials["unk_token"]),
            )
        except Exception as error:  # tokenizers raises plain Exception: "Token `x` out of vocabulary"
            raise ConfigError(f"merges do not fit the vocabulary: {error}") from error
        backend = Backend(model)
        backend.normalizer = normalizer()
        backend.pre_tokenizer = pre_tokenizer()
        backend.decoder = decoders.ByteLevel()
        for index, token in sorted(added.items()):
            backend.add_tokens([token])
            if backend.token_to_id(token.content) != index:
                raise ConfigError(
                    f"The added token {token.content!r} cannot have id {index}: ids must follow the vocabulary."
                )
        present = {token.content for token in added.values()}
        for name, special in self._specials.items():
            # A pad token of its own gets the next id, as in the reference; the others cannot be new.
            known = str_of(special) in self._vocab or name == "pad_token"
            if known and str_of(special) not in present:
                backend.add_tokens([special if isinstance(special, AddedToken) else AddedToken(special, special=True)])
        return backend

    @classmethod
    def from_files(cls, vocab: Path | str, merges: Path | str, *, max_length: int = CONTEXT_LENGTH) -> "Tokenizer":
        """The tokenizer of a `vocab.json` and a `merges.txt`. Raises ModelFileError or ConfigError."""
        return cls(read_vocab(Path(vocab)), read_merges(Path(merges)), max_length=max_length)

    @classmethod
    def from_file(cls, path: Path | str, *, max_length: int = CONTEXT_LENGTH) -> "Tokenizer":
        """The tokenizer of a `tokenizer.json`. Raises ModelFileError or ConfigError."""
        vocab, merges, added = _read_tokenizer_json(Path(path))
        return cls(vocab, merges, added=added, max_length=max_length)

    @classmethod
    def from_folder(cls, path: Path | str) -> "Tokenizer":
        """The tokenizer of a folder of a diffusers model, with its own specials, added tokens and length.

        Files are preferred as the reference does: `tokenizer.json` over `vocab.json`, `special_tokens_map.json` over
        `tokenizer_config.json` (SD 2.x names its pad token only there), but the config's `added_tokens_decoder` over
        both. Raises ModelFileError or ConfigError.
        """
        folder = Path(path)
        config = _read_object(folder / "tokenizer_config.json")
        added: dict[int, AddedToken] = {}
        if (folder / "tokenizer.json").is_file():
            vocab, merges, added = _read_tokenizer_json(folder / "tokenizer.json")
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocab, merges = read_vocab(folder / "vocab.json"), read_merges(folder / "merges.txt")
        else:
            raise ModelFileError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt.")
        if "added_tokens_decoder" in config:
            named = config
            added = _added_tokens(config["added_tokens_decoder"], folder / "tokenizer_config.json")
        else:
            named = {**config, **_read_object(folder / "special_tokens_map.json")}
        by_content = {token.content: token for token in added.values()}
        specials: dict[str, str | AddedToken] = {}
        for name in _SPECIALS:
            if named.get(name) is not None:
                token = _special(named[name], name, folder)
                specials[name] = by_content.get(str_of(token), token)
        if "added_tokens_decoder" not in config:
            added.update(_read_added_tokens(folder / "added_tokens.json", set(map(str_of, specials.values()))))
        return cls(vocab, merges, specials=specials, added=added, max_length=_max_length(config, folder))

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without specials around them and of any length.

        Raises PromptError if the text holds a NUL or half of a surrogate pair: neither can be a prompt.
        """
        if (place := text.find("\0")) >= 0:
            raise PromptError(f"The prompt has a NUL character at position {place}; remove it.", field="prompt")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = f"U+{ord(text[error.start]):04X} at position {error.start}"
            raise PromptError(
                f"The prompt is not valid Unicode: half of a surrogate pair, {found}; remove it.", field="prompt"
            ) from error
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return [each for index in ids for each in self._runs.get(index, (index,))] if self._runs else list(ids)

    def run(self, index: int) -> int:
        """How many tokens the word has that begins with this id: 1, but for added words of several."""
        return len(self._runs.get(index, (index,)))

    def with_word(self, word: str, count: int = 1) -> "Tokenizer":
        """This tokenizer with one more word, which is `count` new tokens: word, word_1, word_2, ... with the next ids.

        Where the word stands in a text, all of them do, as in diffusers. Raises ConfigError for a word that is there
        already, is empty or has white space in it.
        """
        if not word or word.split() != [word]:
            raise ConfigError(f"A new word is text without white space; found {word!r}.")
        added = dict(self._backend.get_added_tokens_decoder())
        tokens = [word, *(f"{word}_{number}" for number in range(1, count))]
        lower = {token.content.lower() for token in added.values()}
        known = [t for t in tokens if {t.lower(), t.lower() + END_OF_WORD} & self._vocab.keys() or t.lower() in lower]
        if known:
            raise ConfigError(f"The tokenizer knows {known[0]!r} already; give the new word another name.")
        first = len(self)
        added |= {first + number: AddedToken(token, special=False) for number, token in enumerate(tokens)}
        return Tokenizer(self._vocab, self._merges, specials=self._specials, added=added, max_length=self.max_length)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` stand for, in lower case and with one space after each word; specials are written out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text.replace(END_OF_WORD, " ").strip()

    def token(self, index: int) -> str:
        """The token of an id as the vocabulary spells it, such as "horse</w>". Raises ValueError for an unknown id."""
        token: str | None = self._backend.id_to_token(index)
        if token is None:
            raise ValueError(f"id {index} is not in the vocabulary of {len(self)} tokens")
        return token

    def id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, None if it has none."""
        index: int | None = self._backend.token_to_id(token)
        return index

    def __len__(self) -> int:
        """How many ids there are, added tokens included."""
        size: int = self._backend.get_vocab_size(with_added_tokens=True)
        return size

    def save(self, folder: Path | str) -> None:
        """Write `vocab.json`, `merges.txt`, `tokenizer_config.json` and `special_tokens_map.json`.

        transformers' `CLIPTokenizer.from_pretrained` and `from_folder` read the same tokenizer from them.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_vocabulary(folder, self._vocab, self._merges)
        specials = {name: str_of(token) for name, token in self._specials.items()}
        added = {str(index): _written(token) for index, token in self._backend.get_added_tokens_decoder().items()}
        config = {
            "added_tokens_decoder": added,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": self.max_length,
            "tokenizer_class": "CLIPTokenizer",
            **specials,
        }
        _write_json(folder / "tokenizer_config.json", config)
        _write_json(folder / "special_tokens_map.json", specials)


def _runs(added: Mapping[int, AddedToken]) -> dict[int, tuple[int, ...]]:
    """The ids of the added words that are several tokens, by the first: those that word_1, word_2, ... go on."""
    ids = {token.content: index for index, token in added.items()}
    runs = {}
    for content, index in ids.items():
        more = [index]
        while (next_one := ids.get(f"{content}_{len(more)}")) is not None:
            more.append(next_one)
        if len(more) > 1:
            runs[index] = tuple(more)
    return runs


def str_of(token: str | AddedToken) -> str:
    """The text of a token that may carry flags."""
    return token.content if isinstance(token, AddedToken) else token


def _read_tokenizer_json(path: Path) -> tuple[dict[str, int], list[Merge], dict[int, AddedToken]]:
    """Vocabulary, merges and added tokens of a `tokenizer.json`; it must be byte-pair encoding as CLIP does it.

    The normalizer and the pre-tokenizer written in the file are not used: the reference puts CLIP's in their place.
    """
    content = read_json(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(model, dict):
        raise ModelFileError(f"{path} is not a tokenizer: it has no model.")
    kind, suffix = model.get("type", "BPE"), model.get("end_of_word_suffix")
    if kind != "BPE" or suffix != END_OF_WORD:
        raise ConfigError(
            f"{path} is not CLIP's tokenizer: byte-pair encoding with </w> is needed, not {kind} with {suffix}."
        )
    vocab = check_vocab(model.get("vocab"), path)
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model.get("merges", ())]
    if not all(len(merge) == 2 and all(isinstance(part, str) for part in merge) for merge in merges):
        raise ModelFileError(f"{path} is not a tokenizer: every merge must be a pair of tokens.")
    listed = content.get("added_tokens") or []
    added = _added_tokens({str(token.get("id")): token for token in listed if isinstance(token, dict)}, path)
    return vocab, [(merge[0], merge[1]) for merge in merges], added


def _added_tokens(listed: object, path: Path) -> dict[int, AddedToken]:
    if not isinstance(listed, dict):
        raise ModelFileError(f"{path}: the added tokens must be an object, id -> token.")
    try:
        return {int(str(index)): _with_flags(token, special=False) for index, token in listed.items()}
    except (TypeError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: an added token cannot be read: {error!r}") from error


def _read_added_tokens(path: Path, specials: set[str]) -> dict[int, AddedToken]:
    """The tokens of the older `added_tokens.json`: token -> id."""
    listed = _read_object(path)
    added = {}
    for token, index in listed.items():
        if not isinstance(index, int):
            raise ModelFileError(f"{path}: the added token {token!r} needs an id, not {index!r}.")
        special = token in specials
        added[index] = AddedToken(token, normalized=not special, special=special)
    return added


def _special(value: object, name: str, folder: Path) -> str | AddedToken:
    if isinstance(value, str):
        return value
    try:
        return _with_flags(value, special=True)
    except (TypeError, KeyError) as error:
        raise ModelFileError(f"{folder}: {name} cannot be read: {value!r}") from error


def _with_flags(value: object, *, special: bool) -> AddedToken:
    """An added token from the object that stands for it in JSON. Raises TypeError or KeyError if it is none."""
    if not isinstance(value, dict) or not isinstance(value["content"], str):
        raise TypeError(f"not a token: {value!r}")
    special = special or bool(value.get("special", False))
    return AddedToken(
        value["content"],
        single_word=bool(value.get("single_word", False)),
        lstrip=bool(value.get("lstrip", False)),
        rstrip=bool(value.get("rstrip", False)),
        normalized=bool(value.get("normalized", not special)),
        special=special,
    )


def _written(token: AddedToken) -> dict[str, str | bool]:
    return {
        "content": token.content,
        "lstrip": token.lstrip,
        "normalized": token.normalized,
        "rstrip": token.rstrip,
        "single_word": token.single_word,
        "special": token.special,
    }


def _max_length(config: Mapping[str, object], folder: Path) -> int:
    """The length of the position table; transformers writes 1e30 when it did not know it."""
    length = config.get("model_max_length", CONTEXT_LENGTH)
    if not isinstance(length, int | float) or isinstance(length, bool) or length < 3:
        raise ConfigError(f"{folder}: model_max_length is {length!r}; a whole number of at least 3 is needed.")
    return int(length) if length < 1e6 else CONTEXT_LENGTH


def _read_object(path: Path) -> dict[str, object]:
    """The JSON object in a file, an empty one if the file does not exist."""
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} must hold a JSON object.")
    return content


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
