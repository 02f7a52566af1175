"""Embeddings that prompts name: those of the registry and of adopted folders whose name is a word of a prompt."""

import logging
import re
from collections.abc import Sequence

from sfumato.errors import ConfigError, ModelFileError
from sfumato.model import Model
from sfumato.request import Dialect, Embedding
from sfumato.weights.embeddings import with_embeddings
from sfumato.weights.known import known

COMFY = "embedding:"  # what stands before a name in ComfyUI's prompts

log = logging.getLogger(__name__)


def embeddings_named(
    texts: Sequence[str], model: Model, dialect: Dialect, there: Sequence[Embedding] = ()
) -> tuple[Embedding, ...]:
    """The embeddings that the texts name, but those that are there already and those that do not fit the model.

    A name is that of the file, without its folder and suffix, or an alias; in the comfy dialect `embedding:` stands
    before it. Upper and lower case are the same, as they are to the tokenizer.
    """
    prefix = COMFY if dialect == "comfy" else ""
    said = "\n".join(texts).lower()
    found: dict[str, Embedding] = {}
    taken = {word.lower() for each in there for word in (each.name, each.word)}
    for each in known("embedding"):
        word = prefix + each.name.rpartition("/")[2]
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
