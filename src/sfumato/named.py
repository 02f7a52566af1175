"""What a request names beside its model: whether it is there, and goes with the model and with what is asked of it.

Headers show it: a weight is read of embeddings alone, which are a few numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from sfumato.controls.reading import control_names, told_task
from sfumato.memory.beside import upscaler_of
from sfumato.model import Model
from sfumato.request import Control, Embedding, ImagePrompt, Lora, Request
from sfumato.upscaling import check_upscaler
from sfumato.weights.control_file import locate_control, open_control
from sfumato.weights.controls import check_fits, control_file
from sfumato.weights.embeddings import check_fits as check_embedding_fits
from sfumato.weights.embeddings import load_embedding, locate_embedding
from sfumato.weights.image_prompts import locate_prompter, open_prompter, prompter_files
from sfumato.weights.lora import locate_lora, open_for
from sfumato.weights.upscaler_file import hollow_upscaler

NONE_KNOWN: Mapping[str, nn.Module] = MappingProxyType({})


def check_there(request: Request) -> None:
    """Raise ModelNotFoundError, or RequestError, for a file beside the model that a request names and is not there."""
    for lora in request.loras:
        locate_lora(lora.name)
    for embedding in request.embeddings:
        locate_embedding(embedding.name)
    for name in control_names(request):
        control_file(name)
    for prompt in request.image_prompts:
        prompter_files(prompt)
    if request.hires is not None:
        check_upscaler(request.hires.upscaler, "hires.upscaler")


def checks(
    request: Request, model: Model, loras: Iterable[Lora], known: Mapping[str, nn.Module] = NONE_KNOWN
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Checks of what a request names, each with its field; they raise what reading it for the model would raise.

    `model` may be without weights; `loras` are the request's and those that its prompts name; `known` are networks of
    controls and image prompts that have been read for it.
    """
    for lora in loras:
        yield "loras", partial(check_lora, model, lora, allow_unmatched=request.allow_unmatched)
    for embedding in request.embeddings:
        yield "embeddings", partial(check_embedding, model, embedding)
    for control in request.controls:
        yield "controls", partial(check_control, model, control, known.get(control.model))
    for prompt in request.image_prompts:
        if prompt.network not in known:
            yield "image_prompts", partial(check_image_prompt, model, prompt)
    upscaler = upscaler_of(request)
    if upscaler is not None:
        yield "hires.upscaler", partial(hollow_upscaler, upscaler)


def check_lora(model: Model, lora: Lora, *, allow_unmatched: bool) -> None:
    """Raise WeightsError for a LoRA that is not for the model."""
    open_for(model, locate_lora(lora.name), allow_unmatched=allow_unmatched)


def check_embedding(model: Model, embedding: Embedding) -> None:
    """Raise WeightsError for an embedding that is not for the model."""
    path = locate_embedding(embedding.name)
    check_embedding_fits(path, load_embedding(path), model)


def check_control(model: Model, control: Control, network: nn.Module | None) -> None:
    """Raise WeightsError for a network that is not for the model, RequestError for what its kind does not have."""
    if network is None:
        opened = open_control(locate_control(control.model), model.unet.config)
        check_fits(opened, model)
        network = opened.component.part.network
    told_task(control, network)


def check_image_prompt(model: Model, prompt: ImagePrompt) -> None:
    """Raise WeightsError for an IP-Adapter and an image encoder that do not go together, or with the model."""
    open_prompter(model, *locate_prompter(prompt))
