"""A1111's extra networks in prompts: `<lora:name:weight>` becomes a LoRA of the request, a known word an embedding."""

import re
from dataclasses import dataclass, replace
from pathlib import PurePath

from sfumato.errors import PromptError
from sfumato.request import Embedding, Lora
from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_fields import refuse
from sfumato.text.networks import without_networks


@dataclass(frozen=True)
class Networks:
    """Prompts without tags, and what the tags asked for."""

    prompt: str
    negative_prompt: str
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()


def find_networks(prompt: str, negative_prompt: str, catalogue: Catalogue) -> Networks:
    """The networks that the prompt names, by the places that this server has them at. Those of the negative prompt are
    none, as in A1111.

    Raises Problem 422 for a network that is not there.
    """
    try:
        plain, named = without_networks(prompt)
    except PromptError as error:
        raise refuse("prompt", f"has a network that is none: {error}") from error
    stems = ((PurePath(name).stem, place) for name, place in catalogue.embeddings.items())
    words = [Embedding(place, word) for word, place in stems if _named(word, plain, negative_prompt)]
    return Networks(plain, negative_prompt, tuple(_there(lora, catalogue) for lora in named), tuple(words))


def _there(lora: Lora, catalogue: Catalogue) -> Lora:
    place = catalogue.lora(lora.name)
    if place is None:
        raise refuse("prompt", f"has <lora:{lora.name}>; there are the LoRAs {', '.join(catalogue.loras) or '(none)'}")
    return replace(lora, name=place)


def _named(name: str, *prompts: str) -> bool:
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
    return any(word.search(prompt) for prompt in prompts)
