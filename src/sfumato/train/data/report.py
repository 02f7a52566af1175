"""What a set holds, before anybody trains on it: sizes, buckets, captions, duplicates, and what is wrong."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median

from sfumato.errors import DataError
from sfumato.text.clip_vocabulary import clip_tokenizer
from sfumato.train.data.alike import near_pairs, same_bytes
from sfumato.train.data.pictures import TOLERATED, PictureSet, refuse_unreadable
from sfumato.train.data.pixels import Progressed, Seen, look_at_all
from sfumato.train.data.records import Source
from sfumato.train.data.samples import LeftOut

CHUNK = 75  # tokens of a caption that a text encoder of Stable Diffusion sees at once
RATIO_EDGES = (0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2.0)  # width to height; 0.95 to 1.05 is nearly square
COMMON = 20  # words or tags that are told
MOST_PAIRS = 1000  # near duplicates that are named; more are not looked for
TAGS = 3  # commas of the middle caption, from which on captions are lists of tags
FILLERS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "by",
        "for",
        "from",
        "her",
        "his",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "the",
        "their",
        "this",
        "that",
        "to",
        "with",
    ]
)


@dataclass(frozen=True)
class Range:
    """The least, the middle and the most."""

    least: float
    middle: float
    most: float


@dataclass(frozen=True)
class Captions:
    """What is said: `tokens` is the length of a caption in CLIP's, `common` the words (or tags) with their counts."""

    count: int
    missing: Sequence[str]
    tokens: Range
    too_long: int
    are_tags: bool
    common: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Report:
    """What `examine` found. `pictures` can be read; `samples` counts repeats and mirrored ones too.

    `buckets` are width, height and samples; `enlarged` counts pictures that are smaller than their bucket; `problems`
    are what training would refuse.
    """

    kind: str
    where: str
    pictures: int
    samples: int
    width: Range
    height: Range
    ratios: Sequence[tuple[str, int]]
    buckets: Sequence[tuple[int, int, int]]
    enlarged: int
    captions: Captions
    same: Sequence[Sequence[str]]
    alike: Sequence[tuple[str, str]]
    unreadable: Sequence[LeftOut]
    notes: Sequence[str]
    problems: Sequence[str]


def examine(source: Source, size: int, *, progressed: Progressed | None = None) -> tuple[Report, PictureSet]:
    """The report on a source for pictures of about `size` x `size` pixels, and the set itself.

    Raises DataError if none of its pictures can be read.
    """
    found = look_at_all(source.records, prints=True, progressed=progressed)
    unreadable = [each for each in found if isinstance(each, LeftOut)]
    seen = [each for each in found if isinstance(each, Seen)]
    if not seen:
        raise DataError(_refusal(unreadable, len(found), source.where) or f"{source.where} holds no pictures.")
    samples = PictureSet(source, size, found, tolerated=1.0)
    captions = _captions(source)
    buckets = Counter(samples.fit(index).size for index in range(samples.length))
    shown = {samples.record(index).name: index for index in range(samples.length)}
    fits = [samples.fit(index) for index in shown.values()]
    sizes = [samples.upright(index) for index in shown.values()]
    names = [record.name for record, each in zip(source.records, found, strict=True) if isinstance(each, Seen)]
    same, alike = _duplicates(names, seen)
    problems = [_refusal(unreadable, len(found), source.where)]
    if captions.missing:
        problems.append(f"{len(captions.missing)} pictures have no caption, first {captions.missing[0]!r}.")
    report = Report(
        kind=source.kind,
        where=source.where,
        pictures=len(seen),
        samples=samples.length,
        width=_range([each.size[0] for each in seen]),
        height=_range([each.size[1] for each in seen]),
        ratios=_histogram([each.size[0] / each.size[1] for each in seen]),
        buckets=[(width, height, count) for (width, height), count in sorted(buckets.items())],
        enlarged=sum(lies.scaled[0] > own[0] for lies, own in zip(fits, sizes, strict=True)),
        captions=captions,
        same=same,
        alike=alike,
        unreadable=unreadable,
        notes=source.notes,
        problems=[problem for problem in problems if problem],
    )
    return report, samples


def _refusal(unreadable: Sequence[LeftOut], count: int, where: str) -> str:
    """What training would say of the unreadable pictures, with the share that it tolerates unless told otherwise."""
    try:
        refuse_unreadable(unreadable, count, TOLERATED, where)
    except DataError as error:
        return str(error)
    return ""


def _captions(source: Source) -> Captions:
    texts = [text for record in source.records for text in record.captions]
    tokenizer = clip_tokenizer()
    lengths = [len(tokenizer.encode(text)) for text in texts]
    are_tags = bool(texts) and median(text.count(",") for text in texts) >= TAGS
    words: Counter[str] = Counter()
    for text in texts:
        parts = text.lower().split(",") if are_tags else re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())
        words.update(part.strip() for part in parts if part.strip() and part.strip() not in FILLERS)
    return Captions(
        count=len(texts),
        missing=[record.name for record in source.records if not record.captions],
        tokens=_range(lengths),
        too_long=sum(length > CHUNK for length in lengths),
        are_tags=are_tags,
        common=words.most_common(COMMON),
    )


def _duplicates(names: Sequence[str], seen: Sequence[Seen]) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Groups of the same bytes, and pairs that look alike; of each group only the first is compared with others."""
    groups = same_bytes([each.digest for each in seen])
    repeated = {at for group in groups for at in group[1:]}
    kept = [at for at in range(len(seen)) if at not in repeated]
    prints = [seen[at].likeness for at in kept]
    pairs = islice(near_pairs([each for each in prints if each is not None]), MOST_PAIRS)
    alike = [(names[kept[one]], names[kept[other]]) for one, other in pairs]
    return [[names[at] for at in group] for group in groups], sorted(alike)


def _range(values: Sequence[int]) -> Range:
    return Range(min(values), median(values), max(values)) if values else Range(0, 0, 0)


def _histogram(ratios: Sequence[float]) -> list[tuple[str, int]]:
    """How many pictures have a ratio of width to height from each edge up to the next."""
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(RATIO_EDGES)]
    names = [f"up to {RATIO_EDGES[0]:g}", *inner, f"from {RATIO_EDGES[-1]:g}"]
    edges = (0.0, *RATIO_EDGES, float("inf"))
    counts = [sum(low <= ratio < high for ratio in ratios) for low, high in pairwise(edges)]
    return list(zip(names, counts, strict=True))
