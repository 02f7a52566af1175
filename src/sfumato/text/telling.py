"""From prompts to what a denoiser is told in the course of a run: editing, AND and places, by a dialect's rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from sfumato.request import Dialect
from sfumato.text.composing import Part, parts
from sfumato.text.editing import Stretch, stretches
from sfumato.text.encode import Conditioning, TextStack
from sfumato.text.told import Composition, Course, Share, Told

Sized = Callable[[Conditioning], Conditioning]
"""Adds the size ids to a conditioning."""


@dataclass(frozen=True)
class Wanted:
    """A prompt of a picture, and how much it counts where: [1, 1, h, w], or everywhere."""

    text: str
    place: Tensor | None = None


@dataclass(frozen=True)
class Asked:
    """One prompt that the network is asked with, in its stretches: its weight, and how much it counts where."""

    stretches: tuple[Stretch, ...]
    weight: float = 1.0
    place: Tensor | None = None


def tell(
    text: TextStack,
    wanted: Sequence[Wanted],
    negative: str,
    sigmas: Sequence[float],
    *,
    dialect: Dialect = "a1111",
    clip_skip: int = 0,
    sized: tuple[Sized, Sized] = (lambda each: each, lambda each: each),
    before: int | None = None,
) -> tuple[Told, Conditioning | Course]:
    """What a denoiser is told of one picture, and what of its negative, on a run over these noise levels.

    All of it has one length. `sized` are for the prompts and for the negative, `before` is how many steps a first pass
    had. Raises PromptError, and RequestError for a clip_skip that is out of range.
    """
    steps = max(1, len(sigmas) - 1)
    every = [replace(part, place=each.place) for each in wanted for part in asked(each.text, steps, dialect, before)]
    unwanted = Asked(_stretches(negative, steps, dialect, before))
    positives = list(dict.fromkeys(stretch.text for each in every for stretch in each.stretches))
    negatives = list(dict.fromkeys(stretch.text for stretch in unwanted.stretches))
    encoded, against = text.encode_all(positives, negatives, dialect=dialect, clip_skip=clip_skip)
    known = {each: sized[0](encoded[number : number + 1]) for number, each in enumerate(positives)}
    avoided = {each: sized[1](against[number : number + 1]) for number, each in enumerate(negatives)}
    told = [Share(_course(each, known, sigmas), each.weight, each.place) for each in every]
    opposite = _course(unwanted, avoided, sigmas)
    if len(told) == 1 and told[0].weight == 1 and told[0].place is None:
        return told[0].told, opposite
    return Composition(tuple(told), opposite), opposite


def asked(text: str, steps: int, dialect: Dialect, before: int | None = None) -> tuple[Asked, ...]:
    """The prompts that the network is asked with for one, each in its stretches. Raises PromptError."""
    found = parts(text) if dialect == "a1111" else (Part(text),)
    return tuple(Asked(_stretches(part.text, steps, dialect, before), part.weight) for part in found)


def _stretches(text: str, steps: int, dialect: Dialect, before: int | None) -> tuple[Stretch, ...]:
    return stretches(text, steps, before) if dialect == "a1111" else (Stretch(steps, text),)


def _course(prompt: Asked, conditionings: dict[str, Conditioning], sigmas: Sequence[float]) -> Conditioning | Course:
    """The conditionings of a prompt's stretches, each until the noise level after its last step."""
    found = [conditionings[stretch.text] for stretch in prompt.stretches]
    if len(found) == 1:
        return found[0]
    return Course(tuple(sigmas[stretch.until] for stretch in prompt.stretches[:-1]), tuple(found))
