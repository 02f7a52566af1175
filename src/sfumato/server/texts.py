"""Every text in a request and what it may be: words, a choice, a picture's id, or a name of the registry; never a path.

A field that is not listed is not passed on, unless it is a plain word: a new one has to be decided on here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sfumato.errors import RequestError
from sfumato.request import Request
from sfumato.text.words import alike_loras
from sfumato.weights.registry import Kind
from sfumato.wording import filled_in

Role = Kind | Literal["words", "sampler", "spacing", "picture"]

ROLES: Mapping[str, Role] = {
    "prompt": "words",
    "prompt[]": "words",
    "negative_prompt": "words",
    "model": "model",
    "vae": "vae",
    "sampler": "sampler",
    "spacing": "spacing",
    "image": "picture",
    "mask": "picture",
    "hires.upscaler": "upscaler",
    "hires.sampler": "sampler",
    "hires.spacing": "spacing",
    "hires.prompt": "words",
    "hires.negative_prompt": "words",
    "loras[].name": "lora",
    "embeddings[].name": "embedding",
    "embeddings[].word": "words",
    "controls[].model": "controlnet",
    "controls[].image": "picture",
    "controls[].preprocessor": "words",
    "controls[].task": "words",
    "perturbed_attention.layers[]": "words",
    "image_prompts[].model": "controlnet",
    "image_prompts[].images[]": "picture",
    "image_prompts[].encoder": "controlnet",
    "image_prompts[].mask": "picture",
    "regions[].prompt": "words",
    "regions[].negative_prompt": "words",
    "regions[].mask": "picture",
    "styles[]": "words",
    "refiner.model": "model",
}
"""Where a text stands in a request's JSON -> what it is."""

PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")  # a choice among words; no path that leads out of an empty folder


def texts(request: Request) -> Iterator[tuple[str, Role, str]]:
    """The texts of a request: where each stands, what it is, and the text. LoRAs that prompts name are told, too.

    The request must have a seed where something is drawn in its prompts. Raises RequestError for a text of a field that
    the server does not know, and PromptError.
    """
    for place, text in leaves(request.to_dict()):
        role = ROLES.get(place)
        if role is not None:
            yield place, role, text
        elif not PLAIN.fullmatch(text):
            raise RequestError(f"{place} is {text[:80]!r}, which a server does not take", place.partition("[")[0])
    for name in prompt_loras(request):
        yield "prompt", "lora", name


def prompt_loras(request: Request) -> list[str]:
    """The LoRAs that the prompts of a request name once styles and all that is drawn are filled in, as in the engine.

    What is written does not show them: `<lo{ra|ra}:name:1>` names one too. Raises PromptError and RequestError.
    """
    return list({lora.name: None for _, loras in alike_loras(request, filled_in(request)) for lora in loras})


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a JSON value and where they stand: `loras[].name`."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from leaves(each, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each, f"{place}[]")


def picture_ids(request: Mapping[str, Any]) -> list[str]:
    """The pictures that a request's JSON names, in its order."""
    return [text for place, text in sorted(leaves(request), key=lambda each: each[0]) if ROLES.get(place) == "picture"]
