"""What the prompts of a picture come to, before any model is asked. Nothing here imports torch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from sfumato.errors import RequestError
from sfumato.request import Lora, Request
from sfumato.request.said import Said
from sfumato.text.networks import without_networks

AS_WRITTEN: Mapping[int, Said] = MappingProxyType({})
"""No picture's prompts were filled in: they are what the request says."""


@dataclass(frozen=True)
class Words:
    """The prompts of one picture as they are encoded, those of its regions, and the LoRAs that prompts name."""

    prompt: str
    negative_prompt: str
    regions: tuple[str, ...] = ()
    loras: tuple[Lora, ...] = ()


def words(request: Request, index: int, said: Mapping[int, Said] = AS_WRITTEN) -> Words:
    """The prompts of picture `index` of a request, as they were filled in or as they were written. Raises PromptError.

    In the a1111 dialect LoRAs are taken out of the prompts; in a negative prompt they are text, as in the webui.
    """
    places = tuple(region.prompt for region in request.regions)
    written = Said(request.prompts[index // request.count], request.negative_prompt, places)
    mine = said.get(index, written)
    if request.dialect != "a1111":
        return Words(mine.prompt, mine.negative_prompt, mine.regions)
    prompt, loras = without_networks(mine.prompt)
    regions = [without_networks(region) for region in mine.regions]
    every = (*loras, *(lora for _, each in regions for lora in each))
    return Words(prompt, mine.negative_prompt, tuple(text for text, _ in regions), every)


def alike_loras(request: Request, said: Mapping[int, Said] = AS_WRITTEN) -> Iterator[tuple[range, tuple[Lora, ...]]]:
    """The pictures of a request in runs that name the same LoRAs in their prompts, and these."""
    named = ((index, words(request, index, said).loras) for index in range(request.total))
    for loras, run in groupby(named, key=lambda each: each[1]):
        numbers = [index for index, _ in run]
        yield range(numbers[0], numbers[-1] + 1), loras


def named_loras(request: Request, said: Mapping[int, Said] = AS_WRITTEN) -> tuple[Lora, ...]:
    """The LoRAs of a request and those that its prompts name, each once."""
    return tuple(dict.fromkeys([*request.loras, *(each for _, loras in alike_loras(request, said) for each in loras)]))


def check_second_loras(
    request: Request, second: Request, said: tuple[Mapping[int, Said], Mapping[int, Said]], pictures: Iterable[int]
) -> None:
    """Raise RequestError for a LoRA that the second pass's prompt alone names: both passes are drawn by one model.

    `second` is the request of that pass, `said` the prompts of both as they were filled in. Also raises PromptError.
    """
    for index in pictures:
        acting = {*request.loras, *words(request, index, said[0]).loras}
        alone = [lora for lora in words(second, index, said[1]).loras if lora not in acting]
        if alone:
            raise RequestError(
                f"hires.prompt names the LoRA {alone[0]}, which does not act in the first pass; both passes "
                "have the same LoRAs: name it in the prompt or among the loras too, or leave it out",
                "hires.prompt",
            )
