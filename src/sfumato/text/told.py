"""What a denoiser is told in the course of a run: one conditioning, several one after another, or several at once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from sfumato.text.encode import Conditioning, stack

EXACT = 1e-6  # how far shares may be from adding up to 1 and still count as such; they are sums of a few float32


@dataclass(frozen=True)
class Course:
    """Conditionings one after another: each holds above its noise level, the last below all.

    `levels` fall; there is one less than conditionings. What is told depends on the noise level alone, so that it is
    the same whatever a sampler evaluates within a step.
    """

    levels: tuple[float, ...]
    conditionings: tuple[Conditioning, ...]

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.conditionings[0])

    def at(self, sigma: float) -> Conditioning:
        """The conditioning at a noise level."""
        return self.conditionings[sum(sigma <= level for level in self.levels)]

    def each(self, change: Callable[[Conditioning], Conditioning]) -> "Course":
        """The same with every conditioning changed."""
        return replace(self, conditionings=tuple(change(each) for each in self.conditionings))


@dataclass(frozen=True)
class Share:
    """One of several prompts for the same pictures: its weight, and how much it counts where, [1, 1, h, w] or all."""

    told: Conditioning | Course
    weight: float = 1.0
    place: Tensor | None = None

    def of(self, like: Tensor) -> Tensor | float:
        """Its weight at each place."""
        return self.weight if self.place is None else self.weight * self.place.to(like)


@dataclass(frozen=True)
class Composition:
    """Several prompts for the same pictures: what each adds to the negative prompt's answer is added up.

    `both`: the negative prompt's answer is wanted, too, before the other: of twice as many latents, which are the same
    twice. Liu et al. 2022 (composable diffusion), equation 11.
    """

    shares: tuple[Share, ...]
    negative: Conditioning | Course
    both: bool = False

    def __len__(self) -> int:
        """How many latents it is for."""
        return len(self.negative) * (2 if self.both else 1)

    def at(self, sigma: float) -> Conditioning:
        """What is told by all of them at a noise level, in order, the negative prompt first."""
        return _simple([self.negative, *(share.told for share in self.shares)]).at(sigma)

    def each(self, change: Callable[[Conditioning], Conditioning]) -> "Composition":
        """The same with every conditioning changed."""
        shares = tuple(replace(share, told=share.told.each(change)) for share in self.shares)
        return replace(self, shares=shares, negative=self.negative.each(change))

    def asked(self, like: Tensor) -> Conditioning | Course:
        """What the network is asked for B latents: the negative prompt where it is needed, then each of the others."""
        every = [share.told for share in self.shares]
        return _simple([self.negative, *every] if self.both or not self._whole(like) else every)

    def answer(self, estimates: Sequence[Tensor]) -> Tensor:
        """The answer of them all, from what was answered to `asked`, [B, C, h, w] each."""
        positives = estimates[-len(self.shares) :]
        if len(estimates) == len(positives):
            return _added(torch.zeros_like(positives[0]), zip(self.shares, positives, strict=True))
        negative = estimates[0]
        added = _added(negative, ((share, each - negative) for share, each in zip(self.shares, positives, strict=True)))
        return torch.cat([negative, added]) if self.both else added

    def _whole(self, like: Tensor) -> bool:
        """Do the shares add up to 1 everywhere, so that the negative prompt's answer falls out?"""
        total = like.new_zeros(1)
        for share in self.shares:
            total = total + share.of(like)
        return bool(((total - 1).abs() <= EXACT).all())


Told: TypeAlias = Conditioning | Course | Composition


def _added(start: Tensor, parts: Iterable[tuple[Share, Tensor]]) -> Tensor:
    for share, part in parts:
        start = start + part * share.of(part)
    return start


def together(parts: Sequence[Told]) -> Told:
    """What all the pictures of `parts` are told, in order.

    A negative prompt before its composition asks for both answers. Raises ValueError for parts that cannot go together:
    conditionings of different lengths, or compositions of different shares.
    """
    if any(isinstance(part, Composition) for part in parts):
        return _compositions(parts)
    plain = [part for part in parts if not isinstance(part, Composition)]
    levels = sorted({level for part in plain if isinstance(part, Course) for level in part.levels}, reverse=True)
    if not levels:
        return stack([part.at(0.0) for part in plain])
    above = [*levels, 0.0]  # the level at which a stretch ends has the conditioning of the next
    inside = [(high + low) / 2 for high, low in zip([above[0] * 2 + 2, *above], above, strict=False)]
    return Course(tuple(levels), tuple(stack([part.at(sigma) for part in plain]) for sigma in inside))


def _compositions(parts: Sequence[Told]) -> Composition:
    last = parts[-1]
    if len(parts) == 2 and isinstance(last, Composition) and not isinstance(parts[0], Composition):
        return replace(last, both=True)
    found = [part for part in parts if isinstance(part, Composition)]
    if len(found) != len(parts) or len({alike(part) for part in found}) != 1:
        raise ValueError("compositions of different shares cannot go together")
    shares = tuple(
        replace(shared[0], told=_simple([share.told for share in shared]))
        for shared in zip(*(part.shares for part in found), strict=True)
    )
    return replace(found[0], shares=shares, negative=_simple([part.negative for part in found]))


def _simple(parts: Sequence[Told]) -> Conditioning | Course:
    joined = together(parts)
    assert not isinstance(joined, Composition)
    return joined


def alike(told: Told) -> tuple[object, ...]:
    """What must be the same in what goes together: the length of the context, and the weights and places of shares."""
    if isinstance(told, Composition):
        shares = tuple((share.weight, id(share.place)) for share in told.shares)
        return told.both, *alike(told.negative), *shares
    return (told.at(0.0).context.shape[1],)
