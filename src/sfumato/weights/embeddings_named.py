"""Embeddings that prompts name: those of the registry and of adopted folders whose name is a word of a prompt.

In the comfy dialect a name stands behind `embedding:`, which nothing else means: what is not there is refused.
"""

import difflib
import logging
import re
from collections.abc import Iterator, Sequence

from sfumato.errors import ConfigError, ModelFileError, PromptError
from sfumato.model import Model
from sfumato.request import Dialect, Embedding
from sfumato.text.comfy import parse_comfy
from sfumato.text.spans import Span
from sfumato.weights.component_files import SUFFIXES
from sfumato.weights.embeddings import with_embeddings
from sfumato.weights.known import known

COMFY = re.compile(r"embedding:([^\s,(){}|]+)", re.IGNORECASE)  # ComfyUI, comfy/sd1_clip.py, tokenize_with_weights
PREFIX = re.compile(r"^embedding:", re.IGNORECASE)
AROUND = ".,;:!?"  # what may stand behind a name

log = logging.getLogger(__name__)


def embeddings_named(
    texts: Sequence[str], model: Model, dialect: Dialect, there: Sequence[Embedding] = ()
) -> tuple[Embedding, ...]:
    """The embeddings that the texts name, but those that are there already and those that do not fit the model.

    A name is that of the file, without its folder and suffix, or an alias. Upper and lower case are the same, as they
    are to the tokenizer. In the comfy dialect errors are those of `embeddings_of_comfy`.
    """
    if dialect == "comfy":
        return embeddings_of_comfy(texts, there)
    said = "\n".join(texts).lower()
    found: dict[str, Embedding] = {}
    taken = {word.lower() for each in there for word in (each.name, each.word)}
    for each in known("embedding"):
        word = each.name.rpartition("/")[2]
        if word.lower() not in said or {word.lower(), each.name.lower()} & taken or word.lower() in found:
            continue
        if re.search(rf"(?<![\w-]){re.escape(word.lower())}(?![\w-])", said) is None or word.split() != [word]:
            continue
        embedding = Embedding(each.name, word)
        try:
            with_embeddings(model, [embedding])
        except (ConfigError, ModelFileError) as error:  # the word may mean what it says
            log.info("the embedding %s is not used: %s", each.name, error)
            continue
        found[word.lower()] = embedding
    return tuple(found.values())


def embeddings_of_comfy(texts: Sequence[str], there: Sequence[Embedding] = ()) -> tuple[Embedding, ...]:
    """The embeddings that the texts name as ComfyUI does, `embedding:folder/name.pt`, folder and suffix as they like.

    Those of the request may be named so, too. Raises PromptError for a name that is none.
    """
    places: dict[str, str] = {}
    for place, name in _places(there):
        places.setdefault(name.lower(), place)
    found: dict[str, Embedding] = {}
    spans = (span.text for text in texts for span in parse_comfy(text) if isinstance(span, Span))
    for match in COMFY.finditer("\n".join(spans)):
        exact = match[1].replace("\\", "/").lower()
        name = match[1] if exact in places else match[1].rstrip(AROUND)
        kept = places.get(name.replace("\\", "/").lower())
        if kept is None:
            close = difflib.get_close_matches(name.lower(), places, n=1)
            raise PromptError(
                f"The prompt has embedding:{name[:80]}, but there is no such embedding"
                f"{f' (did you mean {close[0]!r}?)' if close else ''}; add its file under that name, or hand it over "
                "with the request.",
                "prompt",
            )
        word = f"embedding:{name}"
        found.setdefault(word.lower(), Embedding(kept, word))
    taken = {each.word.lower() for each in there}
    return tuple(each for word, each in found.items() if word not in taken)


def _places(there: Sequence[Embedding]) -> Iterator[tuple[str, str]]:
    """Each embedding, and what it may be called: by its word, or by its file."""
    for each in there:
        plain = each.name.replace("\\", "/")
        word = PREFIX.sub("", each.word)
        for name in (*([word] if word else []), *_spellings(plain)):
            yield each.name, name
    for other in known("embedding"):
        suffix = next((each for each in SUFFIXES if other.place.lower().endswith(each)), "")
        for name in _spellings(f"{other.name.removesuffix(suffix)}{suffix}"):
            yield other.name, name


def _spellings(name: str) -> Iterator[str]:
    """A file's name with its folder and suffix, and without each of them."""
    suffix = next((each for each in SUFFIXES if name.lower().endswith(each)), "")
    for each in (name, name.rpartition("/")[2]):
        yield each
        yield each[: len(each) - len(suffix)]
