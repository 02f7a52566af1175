"""New words of a text encoder: rows beside its table of token embeddings. Gal et al. 2022 (textual inversion)."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from sfumato.nn.clip import LEGACY_END, TextEncoder
from sfumato.nn.lora import twin


class Rows(nn.Module):
    """The vectors of a new word, [n, D]: what a training optimises, in float32."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().float().clone())


class Table(nn.Module):
    """A table of embeddings with rows beside it: ids from `first` on are theirs. The table itself stays frozen."""

    def __init__(self, table: nn.Embedding, rows: Rows, first: int) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.rows = rows
        self.first = first

    def forward(self, ids: Tensor) -> Tensor:
        """[B, L] to [B, L, D]."""
        place = ids - self.first
        new = (place >= 0) & (place < len(self.rows.vectors))
        old = self.table(ids.masked_fill(new, 0))
        rows = self.rows.vectors.to(old.dtype)[place.clamp(0, len(self.rows.vectors) - 1)]
        return torch.where(new[..., None], rows, old)


def learning(encoder: TextEncoder, rows: Rows, first: int, end: int) -> TextEncoder:
    """A text encoder that shares all tensors with another and has rows beside its table, for ids from `first` on.

    `end` is the id of the end token, which an older config does not say: new ids are higher than it.
    """
    second = _with_room(encoder, first + len(rows.vectors), end)
    embeddings = second.text_model.embeddings
    embeddings.token_embedding = Table(embeddings.token_embedding, rows, first)  # type: ignore[assignment]
    return second


@torch.no_grad()
def taught(encoder: TextEncoder, vectors: Tensor, first: int, end: int) -> TextEncoder:
    """A text encoder that shares all tensors with another but the table, which is as long as the new ids need.

    `vectors` [n, D] are those of the ids from `first` on; for `end` see `learning`.
    """
    second = _with_room(encoder, first + len(vectors), end)
    old = encoder.text_model.embeddings.token_embedding.weight
    table = old.new_zeros(second.config.vocab_size, old.shape[1])
    table[: len(old)] = old
    table[first : first + len(vectors)] = vectors.to(old)
    made = nn.Embedding(table.shape[0], table.shape[1], _weight=table)
    second.text_model.embeddings.token_embedding = made.requires_grad_(False)
    return second


def _with_room(encoder: TextEncoder, size: int, end: int) -> TextEncoder:
    second = twin(encoder)
    eos = end if encoder.config.eos_token_id == LEGACY_END else encoder.config.eos_token_id
    second.config = replace(encoder.config, vocab_size=max(size, encoder.config.vocab_size), eos_token_id=eos)
    return second
