"""How the weights of a prompt act on what a text encoder makes of it: one rule for each dialect."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor

from sfumato.errors import PromptError
from sfumato.request import Dialect
from sfumato.text.chunks import Chunk

Encode = Callable[[tuple[int, ...], tuple[int, ...]], Tensor]
"""(ids, places that no token may look at) -> the state that the family reads, [77, D]."""

Weighting = Callable[[Sequence[Chunk], Chunk, Encode], Tensor]
"""(the chunks of a prompt, the chunk of the empty prompt, encoder) -> the weighted states, [chunks x 77, D]."""

SMALLEST = 1e-5  # compel, embeddings_provider.py: epsilon; the tangent of a weight of 0 is infinite


def restore_mean(chunks: Sequence[Chunk], empty: Chunk, encode: Encode) -> Tensor:
    """The state of each token multiplied by its weight, and each chunk's mean restored, as stable-diffusion-webui does.

    Raises PromptError if the weights make a mean vanish.
    """
    return torch.cat([_mean_restored(encode(part.ids, ()), part) for part in chunks])


def _mean_restored(state: Tensor, part: Chunk) -> Tensor:
    if _plain(part):
        return state
    wide = state.float()
    weighted = wide * wide.new_tensor(part.weights)[:, None]
    scale = (wide.mean() / weighted.mean()).item()
    if not abs(scale) < float("inf"):
        raise PromptError(
            "The weights of the prompt cancel each other: the mean vanishes. Change them.", field="prompt"
        )
    return (weighted * scale).to(state.dtype)


def from_empty(chunks: Sequence[Chunk], empty: Chunk, encode: Encode) -> Tensor:
    """Each token between its state in the empty prompt, at weight 0, and its own, at 1, and beyond, as ComfyUI does."""
    return torch.cat([_from_empty(encode(part.ids, ()), part, empty, encode) for part in chunks])


def _from_empty(state: Tensor, part: Chunk, empty: Chunk, encode: Encode) -> Tensor:
    if _plain(part):
        return state
    wide, nothing = state.float(), encode(empty.ids, ()).float()
    weights = wide.new_tensor(part.weights)[:, None]
    return torch.where(weights == 1, wide, nothing + (wide - nothing) * weights).to(state.dtype)


def without(chunks: Sequence[Chunk], empty: Chunk, encode: Encode) -> Tensor:
    """As `from_empty`, then mixed with prompts that hide what has a weight below 1 from the rest, as compel does.

    Each of them counts tan((1 - weight) pi / 2) times: as much as the whole at weight 0.5, without end at 0.
    compel, embeddings_provider.py, DownweightMode.MASK.
    """
    total, parts = 1.0, from_empty(chunks, empty, encode).float()
    for hidden, weight in _downweighted(chunks):
        masked = [
            _from_empty(encode(part.ids, places), part, empty, encode)
            for part, places in zip(chunks, hidden, strict=True)
        ]
        factor = math.tan((1.0 - max(SMALLEST, weight)) * math.pi / 2)
        parts = parts + torch.cat(masked).float() * factor
        total += factor
    return (parts / total).to(encode(chunks[0].ids, ()).dtype)


def _downweighted(chunks: Sequence[Chunk]) -> list[tuple[list[tuple[int, ...]], float]]:
    """Each run of tokens of one weight below 1: the places in each chunk, and the weight. A run may cross chunks."""
    tokens = [(each.weights[place], number, place) for number, each in enumerate(chunks) for place in _places(each)]
    runs = []
    for weight, run in groupby(tokens, key=lambda token: token[0]):
        hidden: list[list[int]] = [[] for _ in chunks]
        for _, number, place in run:
            hidden[number].append(place)
        if weight < 1:
            runs.append(([tuple(places) for places in hidden], weight))
    return runs


def _places(part: Chunk) -> range:
    return range(1, part.length + 1)


def as_it_is(chunks: Sequence[Chunk], empty: Chunk, encode: Encode) -> Tensor:
    """The states without any weights."""
    return torch.cat([encode(part.ids, ()) for part in chunks])


def _plain(part: Chunk) -> bool:
    return all(weight == 1.0 for weight in part.weights)


WEIGHTINGS: dict[Dialect, Weighting] = {
    "a1111": restore_mean,
    "comfy": from_empty,
    "compel": without,
    "plain": as_it_is,
}
