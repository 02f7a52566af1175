"""Embeddings of new words, made by textual inversion: files in the shapes that people share, and models that know them.

Read from safetensors and pickles: {word: [n, D]} (diffusers), {emb_params: [n, D]} (kohya), {emp_params: [n, D]}
(OneTrainer), {string_to_param: {*: [n, D]}} (A1111), and for SDXL {clip_l: [n, 768], clip_g: [n, 1280]}.
A word of n vectors is n tokens in a prompt, and counts as such.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from sfumato.errors import ConfigError, ModelFileError, ModelNotFoundError, OutputError, OutputFormatError, WeightsError
from sfumato.model import Model
from sfumato.nn.embeddings import taught
from sfumato.request import Embedding
from sfumato.text.encode import TextStack
from sfumato.weights.component_files import weight_files
from sfumato.weights.files import check_finite, open_file
from sfumato.weights.locate import locate
from sfumato.weights.recognise import counted
from sfumato.weights.writing import written_aside

EmbeddingDialect = Literal["diffusers", "kohya"]
EMBEDDING_DIALECTS: tuple[EmbeddingDialect, ...] = get_args(EmbeddingDialect)
PAIR = ("clip_l", "clip_g")  # SDXL's two text encoders, in the model's order
NAMELESS = ("emb_params", "emp_params", "*")  # keys that are not the word
MOST = 75  # vectors of a word: what a prompt has room for at once
WIDTHS = {768: "SD 1.x", 1024: "SD 2.x"}  # what a file with one table of this width is for


@dataclass(frozen=True)
class WordVectors:
    """A word's vectors for each text encoder of a model, [n, D] each, and what the file calls the word."""

    word: str
    vectors: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """How many tokens the word is."""
        return len(self.vectors[0])

    @property
    def made_for(self) -> str:
        """What it looks made for."""
        if len(self.vectors) == 2:
            return "SDXL"
        width = self.vectors[0].shape[1]
        return WIDTHS.get(width, f"a text encoder of {width} features")


def load_embedding(path: Path | str) -> WordVectors:
    """Read an embedding's file; a word that it does not name is the file's stem.

    Raises ModelFileError for a file that is damaged or no weights, WeightsError for one that holds something else.
    """
    path = Path(path)
    tensors = open_file(path)
    names = list(tensors)
    if set(names) == set(PAIR):
        word, chosen = path.stem, list(PAIR)
    elif len(names) == 1:
        word, chosen = (path.stem if names[0] in NAMELESS else names[0]), names
    else:
        raise WeightsError(
            f"{path} is no embedding: it holds {counted(len(names), 'tensor')}, first "
            f"{names[0] if names else 'none'!r}; an embedding is one tensor, or {' and '.join(PAIR)}."
        )
    vectors = []
    for name in chosen:
        tensor = tensors[name]
        tensor = tensor[None] if tensor.ndim == 1 else tensor
        if tensor.ndim != 2 or not 1 <= len(tensor) <= MOST or not tensor.is_floating_point():
            shape = list(tensor.shape)
            raise WeightsError(f"{path}: {name!r} is {shape} {tensor.dtype}; an embedding is 1 to {MOST} vectors.")
        check_finite(name, tensor, path)
        vectors.append(tensor)
    if len({len(tensor) for tensor in vectors}) != 1:
        raise WeightsError(f"{path}: {' and '.join(PAIR)} have different numbers of vectors.")
    return WordVectors(word, tuple(vectors))


def save_embedding(
    path: Path | str, embedding: WordVectors, *, dialect: EmbeddingDialect = "diffusers", overwrite: bool = False
) -> Path:
    """Write an embedding as .safetensors; return its path. SDXL's pair has the same names in every dialect.

    Raises OutputError if the file exists (unless it may be overwritten) or cannot be written, or a number is not
    finite.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or dialect not in EMBEDDING_DIALECTS:
        raise OutputFormatError(
            f"{path}: an embedding is written as .safetensors, in {' or '.join(EMBEDDING_DIALECTS)}."
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in embedding.vectors):
        raise OutputError(f"{path}: the vectors of {embedding.word!r} are not finite.")
    name = embedding.word if dialect == "diffusers" else "emb_params"
    names = PAIR if len(embedding.vectors) == 2 else (name,)
    tensors: Mapping[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in zip(names, embedding.vectors, strict=True)
    }
    with written_aside(path, overwrite=overwrite) as aside:
        save_file(dict(tensors), aside, metadata={"format": "pt"})
    return path


def with_embeddings(model: Model, embeddings: Sequence[Embedding]) -> Model:
    """Return a model that knows more words, each from a file; the model itself stays as it is.

    Raises ModelNotFoundError; WeightsError for a file that is not for this model; ConfigError for a word that the model
    knows already; and what `load_embedding` raises.
    """
    if not embeddings:
        return model
    text, files = model.text, dict(model.files)
    for each in embeddings:
        path = locate_embedding(each.name)
        read = load_embedding(path)
        check_fits(path, read, model)
        text = taught_stack(text, replace(read, word=each.word or read.word))
        files[f"embedding {each.word or read.word}"] = (path,)
    return replace(model, text=text, files=files, embeddings=(*model.embeddings, *embeddings))


def locate_embedding(name: str) -> Path:
    """Return the file of an embedding: an alias, a path, or the only file of a folder. Raises ModelNotFoundError."""
    try:
        path = locate(name, kind="embedding")
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"the embedding {name!r} is not there: {error}") from error
    if not path.is_dir():
        return path
    found = weight_files(path)
    if len(found) != 1:
        raise ModelFileError(f"{path}: a folder with {len(found)} weight files; name the embedding's.")
    return found[0]


def check_fits(path: Path, embedding: WordVectors, model: Model) -> None:
    """Raise WeightsError unless an embedding has a vector for each of a model's text encoders."""
    wanted = [encoder.config.hidden_size for encoder in model.text.encoders]
    found = [tensor.shape[1] for tensor in embedding.vectors]
    if found != wanted:
        raise WeightsError(
            f"{path} does not fit {model.name}, which is {model.family.title}: its vectors have {found} features, the "
            f"model's text encoders {wanted}. It looks made for {embedding.made_for}."
        )


def taught_stack(text: TextStack, embedding: WordVectors) -> TextStack:
    """Return text encoders that know one more word. Raises ConfigError if they know it already."""
    tokenizers, encoders = [], []
    for tokenizer, encoder, vectors in zip(text.tokenizers, text.encoders, embedding.vectors, strict=True):
        if len(vectors) > tokenizer.max_length - 2:
            raise ConfigError(f"{embedding.word!r} is {len(vectors)} tokens; {tokenizer.max_length - 2} fit a prompt.")
        tokenizers.append(tokenizer.with_word(embedding.word, len(vectors)))
        encoders.append(taught(encoder, vectors, len(tokenizer), tokenizer.eos))
    return replace(text, tokenizers=tuple(tokenizers), encoders=tuple(encoders))
