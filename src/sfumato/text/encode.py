"""Prompts -> Conditioning, by the rules of each family of Stable Diffusion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.errors import ConfigError, PromptError, RequestError
from sfumato.nn.additions import Adder
from sfumato.nn.clip import TextEncoder
from sfumato.request import Dialect
from sfumato.text.chunks import Chunk, chunk, empty_chunk
from sfumato.text.prompt import FILLS, PromptReport, mixture, report
from sfumato.text.spans import Mixture
from sfumato.text.tokenizer import Tokenizer
from sfumato.text.weighting import WEIGHTINGS, as_it_is

# What the SDXL refiner is told about the picture that is wanted, and that is not: diffusers' defaults, from
# Stability-AI/generative-models.
AESTHETIC_SCORE = 6.0
NEGATIVE_AESTHETIC_SCORE = 2.5


@dataclass(frozen=True)
class SizeIds:
    """What SDXL is told about the training picture that the wanted one should be like. Podell et al. 2023, section 2.2.

    `original` and `target` (height, width) in pixels, None: the picture's own; `crop` (top, left). The refiner is told
    a `score` from 0 to 10 in place of the target.
    """

    original: tuple[int, int] | None = None
    crop: tuple[int, int] = (0, 0)
    target: tuple[int, int] | None = None
    score: float = AESTHETIC_SCORE


@dataclass(frozen=True)
class Conditioning:
    """What a denoiser is told about B pictures.

    `context` [B, L, D]: the words; `pooled` [B, P]: the whole prompt in one vector (SDXL); `size` [B, 6], for the
    refiner [B, 5]: sizes of the picture; `concat` [B, 5, h, w]: mask and masked latent of an inpainting network;
    `adders`: other networks and what they have been shown, which add to the denoiser's own.
    """

    context: Tensor
    pooled: Tensor | None = None
    size: Tensor | None = None
    concat: Tensor | None = None
    adders: tuple[Adder, ...] = ()

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.context)

    def __getitem__(self, pictures: slice) -> "Conditioning":
        """That of some of the pictures."""
        some = self._each(lambda tensor: tensor[pictures])
        return replace(some, adders=tuple(each[pictures] for each in self.adders))

    def take(self, rows: Tensor) -> "Conditioning":
        """That of the pictures with these numbers, [N], without adders."""
        return self._each(lambda tensor: tensor[rows])

    def expand(self, count: int) -> "Conditioning":
        """The same for `count` pictures, from that of one, without adders. Raises ValueError if there are several."""
        if len(self) != 1:
            raise ValueError(f"the conditioning of {len(self)} pictures cannot be expanded; that of one can")
        return self._each(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def at(self, sigma: float) -> "Conditioning":
        """The conditioning at a noise level: the same at all."""
        return self

    def each(self, change: "Callable[[Conditioning], Conditioning]") -> "Conditioning":
        """The same changed; `Course` and `Composition` change every one that they have."""
        return change(self)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Conditioning":
        """The same on a device and in a precision; `size` stays float32, because bfloat16 has no 1025."""
        moved = self._each(lambda tensor: tensor.to(device=device, dtype=dtype))
        moved = replace(moved, adders=tuple(each.to(device, dtype) for each in self.adders))
        return moved if self.size is None else replace(moved, size=self.size.to(device=device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        tensors = (self.context, self.pooled, self.size, self.concat)
        context, *others = (None if tensor is None else change(tensor) for tensor in tensors)
        assert context is not None
        pooled, size, concat = others
        return Conditioning(context, pooled, size, concat)


def stack(parts: Sequence[Conditioning]) -> Conditioning:
    """The conditioning of all the pictures of `parts`, in order.

    Raises ValueError if they differ in length or kind: prompts are padded to one length by encoding them together.
    """
    lengths = {part.context.shape[1] for part in parts}
    if len(lengths) != 1:
        raise ValueError(f"context lengths {sorted(lengths)} cannot be stacked; encode the prompts together")

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        if present and len(present) != len(parts):
            raise ValueError("conditionings with and without pooled, size or concat cannot be stacked")
        return torch.cat(present) if present else None

    return Conditioning(
        torch.cat([part.context for part in parts]),
        joined([part.pooled for part in parts]),
        joined([part.size for part in parts]),
        joined([part.concat for part in parts]),
        joined_adders([part.adders for part in parts]),
    )


def joined_adders(parts: Sequence[tuple[Adder, ...]]) -> tuple[Adder, ...]:
    """The adders of all the pictures. Raises ValueError unless all parts have the same ones in the same order."""
    if len({tuple(map(type, adders)) for adders in parts}) != 1:
        raise ValueError("conditionings with different adders cannot be stacked")
    return tuple(first.joined(others) for first, *others in zip(*parts, strict=True))


@dataclass(frozen=True)
class TextRules:
    """How a family of models reads the states of its text encoders.

    `skip`: layers left out at the end, 0 = the last layer's state; `final_norm`: whether the final norm is applied to
    it; `pooled`: whether the last encoder's pooled projection is part of the conditioning; `sizes`: how many size ids
    there are (0, 6 or, with an aesthetic score, 5); `zero_empty_negative`: whether an empty negative prompt is all
    zeros; `limit`: the most chunks of a prompt that the denoiser takes, None for any number.
    """

    skip: int = 0
    final_norm: bool = True
    pooled: bool = False
    sizes: int = 0
    zero_empty_negative: bool = False
    limit: int | None = None


SD1 = TextRules()
# SD 2.x reads the penultimate of OpenCLIP H's 24 layers. Published diffusers folders hold only the first 23, so that
# it is their last layer: SD1's rules are right for them, these for an encoder with all 24.
SD2 = TextRules(skip=1)
SDXL = TextRules(skip=1, final_norm=False, pooled=True, sizes=6, zero_empty_negative=True)
SDXL_REFINER = replace(SDXL, sizes=5, zero_empty_negative=False)


@dataclass(frozen=True)
class TextStack:
    """The text encoders of a model, each with its tokenizer, and the rules by which they are read.

    Raises ConfigError if tokenizers and encoders do not fit each other.
    """

    tokenizers: tuple[Tokenizer, ...]
    encoders: tuple[TextEncoder, ...]
    rules: TextRules

    def __post_init__(self) -> None:
        if not self.encoders or len(self.tokenizers) != len(self.encoders):
            raise ConfigError(
                f"{len(self.encoders)} text encoders need as many tokenizers, not {len(self.tokenizers)}."
            )
        if len({tokenizer.max_length for tokenizer in self.tokenizers}) != 1:
            lengths = [tokenizer.max_length for tokenizer in self.tokenizers]
            raise ConfigError(f"The tokenizers' max_length must be the same, not {lengths}: states are concatenated.")
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            places, size = encoder.config.max_position_embeddings, encoder.config.vocab_size
            if tokenizer.max_length > places:
                raise ConfigError(f"The tokenizer makes {tokenizer.max_length} ids; its text encoder takes {places}.")
            if len(tokenizer) > size:
                raise ConfigError(f"The tokenizer has {len(tokenizer)} tokens; its text encoder knows {size}.")

    @property
    def most_clip_skip(self) -> int:
        """The most layers that can be left out, beyond those that the family leaves out."""
        return min(encoder.config.num_hidden_layers for encoder in self.encoders) - 1 - self.rules.skip

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "TextStack":
        """This stack, its encoders moved to a device and into a precision."""
        for encoder in self.encoders:
            encoder.to(device=device, dtype=dtype)
        return self

    def tokens(self, prompt: str, *, dialect: Dialect = "a1111", encoder: int = 0) -> PromptReport:
        """What becomes of a prompt before it is encoded, for one of the encoders. Raises PromptError."""
        return report(prompt, self.tokenizers[encoder], dialect=dialect, limit=self.rules.limit)

    @torch.no_grad()
    def encode(
        self, prompts: str | Sequence[str], *, dialect: Dialect = "a1111", clip_skip: int = 0, rows: int = 1
    ) -> Conditioning:
        """The conditioning of each prompt, [B, chunks x 77, D]; shorter prompts are padded with empty chunks.

        `clip_skip` leaves out so many more layers than the family does: 1 is what A1111 calls 2. `rows` chunks go
        through an encoder at a time; with 1, what a prompt gives does not depend on the prompts beside it, bit for bit.
        Without gradients; `size` is None until `sized` sets it. What is beyond `rules.limit` is left out: see `tokens`.
        Raises PromptError for a prompt that cannot be read, RequestError for a clip_skip that is out of range.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        return self._encode(prompts, dialect=dialect, clip_skip=clip_skip, rows=rows)

    @torch.no_grad()
    def encode_pair(
        self,
        prompts: str | Sequence[str],
        negatives: str | Sequence[str] = "",
        *,
        dialect: Dialect = "a1111",
        clip_skip: int = 0,
        rows: int = 1,
    ) -> tuple[Conditioning, Conditioning]:
        """The conditionings of prompts and of their negatives, of one length; one negative serves all prompts.

        An empty negative is all zeros where the family says so: SDXL, as diffusers does when none is given. Options and
        errors are those of `encode`; also raises PromptError if the numbers of prompts and negatives differ.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        negatives = [negatives] * len(prompts) if isinstance(negatives, str) else list(negatives)
        if len(negatives) != len(prompts):
            raise PromptError(
                f"There are {len(negatives)} negative prompts for {len(prompts)} prompts; give one, or one for each.",
                field="negative_prompt",
            )
        return self.encode_all(prompts, negatives, dialect=dialect, clip_skip=clip_skip, rows=rows)

    @torch.no_grad()
    def encode_all(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        *,
        dialect: Dialect = "a1111",
        clip_skip: int = 0,
        rows: int = 1,
    ) -> tuple[Conditioning, Conditioning]:
        """As `encode_pair`, for any number of prompts and any number of negatives."""
        given = [negative or (None if self.rules.zero_empty_negative else "") for negative in negatives]
        both = self._encode([*prompts, *given], dialect=dialect, clip_skip=clip_skip, rows=rows)
        return both[: len(prompts)], both[len(prompts) :]

    def sized(
        self,
        conditioning: Conditioning,
        *,
        height: int,
        width: int,
        original: tuple[int, int] | None = None,
        crop: tuple[int, int] = (0, 0),
        target: tuple[int, int] | None = None,
        score: float = AESTHETIC_SCORE,
    ) -> Conditioning:
        """The conditioning with the size ids of a picture of height x width pixels; the same if the family has none.

        The others are those of `SizeIds`.
        """
        if self.rules.sizes == 0:
            return conditioning
        last = (score,) if self.rules.sizes == 5 else target or (height, width)
        ids = torch.tensor([*(original or (height, width)), *crop, *last], dtype=torch.float32)
        return replace(conditioning, size=ids.to(conditioning.context.device).repeat(len(conditioning), 1))

    def ids(self, captions: Sequence[str]) -> tuple[Tensor, ...]:
        """Plain captions as each encoder takes them, [B, 77] int64: cut to one chunk, as in all training of SD."""
        rows = [
            [_divided(mixture(text, "plain"), tokenizer, "plain", 1)[0][0].ids for text in captions]
            for tokenizer in self.tokenizers
        ]
        return tuple(torch.tensor(some) for some in rows)

    def encode_ids(self, ids: Sequence[Tensor]) -> Conditioning:
        """The conditioning of chunks [B, 77] for each encoder, all at a time; gradients can be taken."""
        found = [_states(encoder, some, self.rules) for encoder, some in zip(self.encoders, ids, strict=True)]
        contexts, pooled = zip(*found, strict=True)
        return Conditioning(torch.cat(contexts, dim=-1), pooled[-1] if self.rules.pooled else None)

    def _encode(self, prompts: Sequence[str | None], *, dialect: Dialect, clip_skip: int, rows: int) -> Conditioning:
        """As `encode`; a prompt that is None gives zeros. At least one must not be None."""
        self._check_clip_skip(clip_skip)
        read = [None if prompt is None else mixture(prompt, dialect) for prompt in prompts]
        present = [each for each in read if each is not None]
        if not present:
            raise PromptError("There is no prompt to encode; give at least one, which may be empty.", field="prompt")
        divided = [
            [_divided(each, tokenizer, dialect, self.rules.limit) for each in present] for tokenizer in self.tokenizers
        ]
        most = max(_length(each.kind, parts) for tower in divided for each, parts in zip(present, tower, strict=True))
        contexts, pooled = [], None
        for tokenizer, encoder, tower in zip(self.tokenizers, self.encoders, divided, strict=True):
            states = _States(encoder, tokenizer, self.rules, clip_skip)
            states.encode([each.ids for parts in tower for chunks in parts for each in chunks], rows)
            context = [_mixed(each, parts, most, states, dialect) for each, parts in zip(present, tower, strict=True)]
            contexts.append(_with_zeros(context, read))
            pooled = _with_zeros([states.pooled(parts[0][0].ids) for parts in tower], read)
        return Conditioning(torch.cat(contexts, dim=-1), pooled if self.rules.pooled else None)

    def _check_clip_skip(self, clip_skip: int) -> None:
        if not 0 <= clip_skip <= self.most_clip_skip:
            raise RequestError(
                f"clip_skip is {clip_skip}; the text encoder can leave out 0 to {self.most_clip_skip} layers.",
                field="clip_skip",
            )


def _divided(read: Mixture, tokenizer: Tokenizer, dialect: Dialect, limit: int | None) -> list[list[Chunk]]:
    """The chunks of each part of a prompt. What is beyond the limit is left out."""
    parts, left = [], limit
    for spans in read.parts:
        chunks = list(chunk(spans, tokenizer, fill=FILLS[dialect], limit=left).chunks)
        parts.append(chunks)
        left = None if left is None or read.kind == "blend" else left - len(chunks)
        if left is not None and left <= 0:
            break
    return parts


def _length(kind: str, parts: Sequence[Sequence[Chunk]]) -> int:
    """How many chunks a prompt of these parts has."""
    lengths = [len(chunks) for chunks in parts]
    return max(lengths) if kind == "blend" else sum(lengths)


def _mixed(read: Mixture, parts: Sequence[list[Chunk]], most: int, states: "_States", dialect: Dialect) -> Tensor:
    """The states of a whole prompt, [most x 77, D], weighted by the rules of a dialect and padded with empty chunks."""
    empty, weigh = empty_chunk(states.tokenizer), WEIGHTINGS[dialect]
    nothing = [empty] * most
    if read.kind == "blend":
        padded = [weigh([*chunks, *nothing[len(chunks) :]], empty, states.hidden) for chunks in parts]
        return sum(
            (each * weight for each, weight in zip(padded[1:], read.weights[1:], strict=False)),
            padded[0] * read.weights[0],
        )
    found = []
    for chunks, weight in zip(parts, read.weights, strict=False):
        state = weigh(chunks, empty, states.hidden)
        if weight != 1:
            base = as_it_is([empty] * len(chunks), empty, states.hidden)
            state = base + (state - base) * weight
        found.append(state)
    padding = most - sum(len(chunks) for chunks in parts)
    return torch.cat([*found, *[states.hidden(empty.ids, ())] * padding])


def _with_zeros(values: Sequence[Tensor], read: Sequence[Mixture | None]) -> Tensor:
    """The values as one tensor, with zeros at the places where `read` is None."""
    remaining = iter(values)
    zeros = torch.zeros_like(values[0])
    return torch.stack([zeros if each is None else next(remaining) for each in read])


class _States:
    """What an encoder makes of chunks of ids, each computed once."""

    def __init__(self, encoder: TextEncoder, tokenizer: Tokenizer, rules: TextRules, clip_skip: int) -> None:
        self.tokenizer = tokenizer
        self._encoder, self._rules, self._skip = encoder, rules, clip_skip
        self._found: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Tensor, Tensor]] = {}

    def encode(self, ids: Sequence[tuple[int, ...]], rows: int) -> None:
        """Compute the states of chunks, so many together."""
        different = list(dict.fromkeys(ids))
        for start in range(0, len(different), rows):
            self._run(different[start : start + rows], ())

    def hidden(self, ids: tuple[int, ...], hidden: tuple[int, ...]) -> Tensor:
        """The state that the rules name, [77, D]; no token looks at those at the places that are hidden."""
        if (ids, hidden) not in self._found:
            self._run([ids], hidden)
        return self._found[ids, hidden][0]

    def pooled(self, ids: tuple[int, ...]) -> Tensor:
        """The pooled vector, [P], which is the last layer's at any clip_skip."""
        return self._found[ids, ()][1]

    def _run(self, some: Sequence[tuple[int, ...]], hidden: tuple[int, ...]) -> None:
        device = next(self._encoder.parameters()).device
        seen = None
        if hidden:
            seen = torch.ones(len(some), len(some[0]), dtype=torch.bool, device=device)
            seen[:, list(hidden)] = False
        state, pooled = _states(self._encoder, torch.tensor(some), self._rules, self._skip, seen)
        keys = [(ids, hidden) for ids in some]
        self._found.update(zip(keys, zip(state, pooled, strict=True), strict=True))


def _states(
    encoder: TextEncoder, ids: Tensor, rules: TextRules, clip_skip: int = 0, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The states of chunks [B, 77] that the rules name, [B, 77, D], and their pooled vectors, [B, P]."""
    skip = rules.skip + clip_skip
    states = encoder(ids.to(next(encoder.parameters()).device), seen)
    state = states.hidden[-1 - skip]
    if rules.final_norm:
        state = states.last if skip == 0 else encoder.final_norm(state)
    return state, states.pooled
