"""Whether a request can work, before a weight is read: all that its words, its fields and a model's traits show."""

from collections.abc import Callable, Mapping

from sfumato.request import Defaults, Request, fill
from sfumato.request.said import Said
from sfumato.request.together import check_together, second_request
from sfumato.request.traits import Sampled, Traits, check_traits, masked
from sfumato.text.composing import Part, parts
from sfumato.text.editing import stretches
from sfumato.text.prompt import mixture
from sfumato.text.words import Words, check_second_loras, words
from sfumato.wording import filled_in

MOST_READ = 200_000  # characters of a prompt in all of its steps; a longer one is read when it is drawn

SampledBy = Callable[[str | None, str | None], Sampled]
"""What the names of a sampler and a spacing stand for; None: the model's own way."""


def admit(
    request: Request,
    defaults: Defaults,
    traits: Traits,
    sampled_by: SampledBy,
    *,
    start: tuple[int, int] | None = None,
    mask: bool = False,
    refiner: Traits | None = None,
) -> Request:
    """The request with every None replaced by what suits its model, if it can work; it must have a seed.

    `start` is the size of the start picture, `mask` whether there is one, named by the request or handed over.
    Raises RequestError and PromptError.
    """
    check_together(request, image=start is not None, mask=mask)
    if mask or request.outpaint is not None:
        request, traits = masked(request, traits)
    said = filled_in(request)
    resolved = fill(request, defaults, start)
    check_traits(resolved, traits, sampled_by(request.sampler, request.spacing), refiner)
    check_words(resolved, said)
    if resolved.hires is not None:
        own = resolved.hires.sampler
        spacing = resolved.hires.spacing or (None if own else request.spacing)
        sampled = sampled_by(own or request.sampler, spacing)
        again = second_request(resolved, takes_eta=sampled.eta)
        check_traits(again, traits, sampled, refiner)
        second = filled_in(again) if resolved.hires.says_other_words else said
        check_words(again, second)
        check_second_loras(resolved, again, (said, second), range(resolved.total))
    return resolved


def check_words(request: Request, said: Mapping[int, Said]) -> None:
    """Raise PromptError for prompts that no model can encode, as they were filled in."""
    for each in {words(request, index, said): None for index in range(request.total)}:
        _check_one(each, request)


def _check_one(said: Words, request: Request) -> None:
    for text in (said.prompt, *said.regions):
        for part in parts(text) if request.dialect == "a1111" else (Part(text),):
            _check_text(part.text, request)
    _check_text(said.negative_prompt, request)


def _check_text(text: str, request: Request) -> None:
    steps = request.steps or 1
    if request.dialect != "a1111" or "[" not in text:
        mixture(text, request.dialect)
    elif len(text) * steps <= MOST_READ:
        for each in {stretch.text for stretch in stretches(text, steps)}:
            mixture(each, request.dialect)
