"""Aspect-ratio buckets: the sizes there are, which picture goes where, and microbatches that each hold one size.

Sizes are (width, height) in pixels. The rules are those that kohya's sd-scripts has published with
`make_bucket_resolutions` and `BucketManager.select_bucket`, so that a set falls into the same buckets there and here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt, sqrt

import numpy as np

from sfumato.errors import ConfigError

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class BucketRules:
    """The shortest and longest side, and the step that both are multiples of, in pixels; 0 is what suits the area.

    What suits it: half and twice the side of a square of the area, and an eighth of that side up to 64. For 512 pixels
    these are kohya's own 256, 1024 and 64. Without `upscale` a picture is never enlarged: the sizes are then those of
    the pictures themselves, cut to whole steps, and the shortest and longest side do not count.
    """

    smallest: int = 0
    largest: int = 0
    step: int = 0
    upscale: bool = True


def settled(rules: BucketRules, resolution: Size) -> BucketRules:
    """The rules with every 0 filled in, the sides widened to whole steps.

    Raises ConfigError for sides that contradict each other.
    """
    side = isqrt(resolution[0] * resolution[1])
    step = rules.step or max(8, min(64, side // 64 * 8))
    if step % 8 or step < 8:
        raise ConfigError(f"The step of buckets is {step}; sides must be whole latent cells, multiples of 8.")
    filled = BucketRules(
        smallest=max(step, (rules.smallest or min(*resolution, side // 2)) // step * step),
        largest=-(-(rules.largest or max(*resolution, 2 * side)) // step) * step,
        step=step,
        upscale=rules.upscale,
    )
    if rules.upscale and not filled.smallest <= min(resolution) <= max(resolution) <= filled.largest:
        raise ConfigError(
            f"Buckets have sides from {filled.smallest} to {filled.largest}, but the resolution is "
            f"{resolution[0]}x{resolution[1]}; both of its sides must lie between."
        )
    return filled


def bucket_sizes(resolution: Size, rules: BucketRules) -> list[Size]:
    """The sizes whose area is at most that of `resolution`, as large as the step allows, in ascending order."""
    rules = settled(rules, resolution)
    area = resolution[0] * resolution[1]
    square = isqrt(area) // rules.step * rules.step
    sizes = {(square, square)} if square else set()
    for width in range(rules.smallest, rules.largest + 1, rules.step):
        height = min(rules.largest, area // width // rules.step * rules.step)
        if height >= rules.smallest:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


@dataclass(frozen=True)
class Fit:
    """How a picture lies in its bucket: scaled to `scaled`, of which `size` is cut out."""

    size: Size
    scaled: Size


def cover(picture: Size, size: Size) -> Fit:
    """The picture scaled, its shape kept, until it just covers `size`."""
    scale = max(size[0] / picture[0], size[1] / picture[1])
    scaled = max(size[0], int(picture[0] * scale + 0.5)), max(size[1], int(picture[1] * scale + 0.5))
    return Fit(size, scaled)


def fit(picture: Size, resolution: Size, rules: BucketRules) -> Fit:
    """The bucket of a picture: the one of its very size, else of the nearest ratio of width to height.

    Without `upscale`: the picture, scaled down to the area where it is larger, cut to multiples of the step. A side
    that would be shorter than one step is the exception: it is enlarged to one, and the other cut to the longest.
    """
    if not rules.upscale:
        return _as_it_is(picture, resolution, settled(rules, resolution))
    sizes, ratios = _table(resolution, rules)
    if picture in sizes:
        return Fit(picture, picture)
    return cover(picture, sizes[int(np.abs(ratios - picture[0] / picture[1]).argmin())])


@lru_cache(maxsize=64)
def _table(resolution: Size, rules: BucketRules) -> tuple[list[Size], "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    sizes = bucket_sizes(resolution, rules)
    return sizes, np.array([width / height for width, height in sizes])


def _as_it_is(picture: Size, resolution: Size, rules: BucketRules) -> Fit:
    area, step, ratio = resolution[0] * resolution[1], rules.step, picture[0] / picture[1]
    scaled = picture
    if picture[0] * picture[1] > area:
        # one side is rounded to the step, the other follows; which one, decides what is nearer to the picture's shape
        width, height = _whole(sqrt(area * ratio), step), _whole(sqrt(area / ratio), step)
        by_width = abs(width / max(step, _whole(width / ratio, step)) - ratio)
        by_height = abs(_whole(height * ratio, step) / max(step, height) - ratio)
        scaled = (width, int(width / ratio + 0.5)) if by_width < by_height else (int(height * ratio + 0.5), height)
    longest = max(scaled)
    if min(scaled) < step:
        scaled, longest = cover(picture, (step, step)).scaled, rules.largest
    return Fit((min(longest, scaled[0]) // step * step, min(longest, scaled[1]) // step * step), scaled)


def _whole(length: float, step: int) -> int:
    return int(length + 0.5) // step * step


class BucketPlan:
    """Which samples each microbatch of a run holds: all of one bucket, a pure function of the seed and its number.

    Microbatches come in cycles of as many as there are samples. In a cycle each bucket has as many microbatches as it
    has samples, spread evenly, so that each sample is seen exactly `size` times; a bucket goes through its samples
    epoch by epoch, each a permutation, and its microbatches are always full: one may hold the end of an epoch and the
    beginning of the next. Raises ConfigError where there is nothing to plan.
    """

    def __init__(self, buckets: Sequence[Size], size: int, seed: int) -> None:
        """`buckets[i]` is the width and height that sample i is seen in; `size` the samples of a microbatch."""
        if size < 1 or not buckets:
            raise ConfigError(f"Microbatches of {size} from {len(buckets)} samples cannot be planned.")
        number = {bucket: at for at, bucket in enumerate(sorted(set(buckets)))}
        bucket_of = np.array([number[bucket] for bucket in buckets])
        self._members = [np.flatnonzero(bucket_of == at) for at in range(len(number))]
        self.cycle, self.size, self.seed = len(buckets), size, seed
        self._laid: tuple[int, _Laid] | None = None

    def __getitem__(self, number: int) -> list[int]:
        """The samples of microbatch `number` of the run, from 0."""
        cycle, place = divmod(number, self.cycle)
        if self._laid is None or self._laid[0] != cycle:
            self._laid = cycle, self._lay_out(cycle)
        laid = self._laid[1]
        bucket = int(laid.bucket[place])
        members = self._members[bucket]
        first = (cycle * len(members) + int(laid.rank[place])) * self.size
        return [self._sample(bucket, members, at) for at in range(first, first + self.size)]

    def _sample(self, bucket: int, members: "Indices", at: int) -> int:
        epoch, place = divmod(at, len(members))
        return int(members[_shuffled(self.seed, bucket, epoch, len(members))[place]])

    def _lay_out(self, cycle: int) -> "_Laid":
        rng = np.random.default_rng([self.seed, cycle])
        counts = [len(members) for members in self._members]
        times = np.concatenate([(np.arange(count) + rng.random()) / count for count in counts])
        order = np.argsort(times, kind="stable")
        buckets = np.repeat(np.arange(len(counts)), counts)
        ranks = np.concatenate([np.arange(count) for count in counts])
        return _Laid(buckets[order], ranks[order])


Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class _Laid:
    """For each microbatch of a cycle its bucket, and how many of that bucket come before it."""

    bucket: Indices
    rank: Indices


@lru_cache(maxsize=256)  # a run moves through one epoch of each bucket at a time
def _shuffled(seed: int, bucket: int, epoch: int, count: int) -> Indices:
    return np.random.default_rng([seed, bucket, epoch]).permutation(count)
