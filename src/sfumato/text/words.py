"""What the prompts of a picture come to, before any model is asked. Nothing here imports torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from sfumato.request import Lora, Request
from sfumato.text.networks import without_networks


@dataclass(frozen=True)
class Words:
    """The prompts of one picture as they are encoded, and the LoRAs that the prompt names."""

    prompt: str
    negative_prompt: str
    loras: tuple[Lora, ...] = ()


def words(request: Request, index: int) -> Words:
    """The prompts of picture `index` of a request. Raises PromptError.

    In the a1111 dialect LoRAs are taken out of the prompt; in a negative prompt they are text, as in the webui.
    """
    prompt = request.prompts[index // request.count]
    if request.dialect != "a1111":
        return Words(prompt, request.negative_prompt)
    prompt, loras = without_networks(prompt)
    return Words(prompt, request.negative_prompt, loras)


def alike_loras(request: Request) -> Iterator[tuple[range, tuple[Lora, ...]]]:
    """The pictures of a request in runs that name the same LoRAs in their prompts, and these."""
    named = ((index, words(request, index).loras) for index in range(request.total))
    for loras, run in groupby(named, key=lambda each: each[1]):
        numbers = [index for index, _ in run]
        yield range(numbers[0], numbers[-1] + 1), loras
