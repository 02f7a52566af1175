"""How well a model draws what it is asked for, next to what the readers and the autoencoder allow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from PIL import Image

from sfumato.errors import RequestError
from sfumato.evaluate.artist import Artist, ModelArtist
from sfumato.evaluate.distances import Distance, kid, median_distance, mmd, standardised
from sfumato.evaluate.editing import STRENGTHS, Edited, redrawn, repainted
from sfumato.evaluate.edits import EDITS
from sfumato.evaluate.memorisation import Training, memorised
from sfumato.evaluate.readings import Eyes, eyes, rendered, scored
from sfumato.evaluate.readings import rows as read_rows
from sfumato.evaluate.report import Quality, Report
from sfumato.evaluate.rows import Row, Sample
from sfumato.evaluate.suites import SUITES, Case, Suite, cases, shuffled
from sfumato.images import psnr, ssim
from sfumato.model import Model
from sfumato.request import Request
from sfumato.scenes.reader import Reader
from sfumato.scenes.scene import JITTER, Scene

COUNT = 200  # prompts a suite: a share near 0.9 is then known within 4 %
EMPTY = 64  # pictures of no words, at most
MOVED = JITTER / 2  # of a picture width: how far a thing may lie from where it was in a scene that is drawn again
MOST = 10_000  # pictures of a suite
DEFAULT = ("one", "two", "unseen")
TITLES = {name: suite.title for name, suite in {**SUITES, **EDITS}.items()}
"""Every suite, with words for it."""

Progressed = Callable[[int, int], None]
"""Told (pictures drawn, pictures in all) after each."""


def evaluate(
    model: Model,
    suites: Sequence[str] = DEFAULT,
    count: int = COUNT,
    *,
    settings: Request | None = None,
    reader: Reader | None = None,
    training: Training | None = None,
    progressed: Progressed | None = None,
) -> Report:
    """Draws `count` pictures of each suite, reads them, and says how much of what was asked for is there.

    `settings` is a request whose prompt is ignored and whose other fields hold; picture i of a suite uses its seed + i
    (0 unless said). The model's own defaults are measured without it. The learned reader is the package's own unless
    given. Raises RequestError for a suite that does not exist and for what the model cannot do.
    """
    names = chosen(suites, count)
    if settings is not None and settings.masking is not None and "inpainting" not in names:
        raise RequestError(
            f"masking is {settings.masking!r}, but no suite has a mask; add the suite inpainting, or leave it out",
            "masking",
        )
    return measure(
        ModelArtist.of(model, settings), eyes(reader), names, count, training=training, progressed=progressed
    )


def chosen(suites: Sequence[str], count: int) -> tuple[str, ...]:
    """The suites of these names, each once; "all" is every one.

    Raises RequestError for a suite that does not exist, none at all, or a count that cannot be drawn.
    """
    unknown = [name for name in suites if name not in TITLES and name != "all"]
    if unknown or not suites:
        found = ", ".join(unknown) or "empty"
        raise RequestError(f"suites is {found}; there are {', '.join(TITLES)}, and all of them as all", "suites")
    if isinstance(count, bool) or not 1 <= count <= MOST:
        raise RequestError(f"count is {count}; it must be a whole number from 1 to {MOST}", "count")
    return tuple(TITLES) if "all" in suites else tuple(dict.fromkeys(suites))


def measure(
    artist: Artist,
    eyes: Eyes,
    suites: Sequence[str],
    count: int,
    *,
    training: Training | None = None,
    progressed: Progressed | None = None,
) -> Report:
    """`evaluate` for whoever draws, and whoever reads; the suites are those of `chosen`."""
    told = _counter(progressed, _total(suites, count))
    in_words = [name for name in suites if name in SUITES]
    empty = artist.draw([""] * min(count, EMPTY), told) if in_words else []
    found = [_words(artist, eyes, name, count, empty, told) for name in in_words]
    edited = [_edits(artist, eyes, name, count, told) for name in suites if name in EDITS]
    rows = [row for each in found for row in each.rows] + [row for each in edited for row in each.rows]
    samples = [s for each in found for s in each.samples] + [s for each in edited for s in each.samples]
    renders = [picture for each in found for picture in each.renders]
    through = [picture for each in found for picture in each.through]
    drawn = [sample.picture for each in found for sample in each.samples]
    return Report(
        model=artist.name,
        settings=artist.settings,
        rows=tuple(rows),
        samples=tuple(samples),
        distances=tuple(distance for each in found for distance in each.distances),
        seams=tuple(seam for each in edited for seam in each.seams),
        quality=_quality(renders, through) if found else None,
        memorisation=memorised(drawn, renders, through, training or Training()) if found else None,
        drawn=artist.clock.pictures,
        seconds=artist.clock.seconds,
    )


@dataclass(frozen=True)
class _Words:
    """What a suite of words found, and its renders before and after the autoencoder."""

    rows: list[Row]
    samples: list[Sample]
    distances: list[Distance]
    renders: list[Image.Image]
    through: list[Image.Image]


def _words(
    artist: Artist, eyes: Eyes, name: str, count: int, empty: list[Image.Image], told: Callable[[], None]
) -> _Words:
    suite = SUITES[name]
    among = cases(suite, count)
    captions = [case.caption for case in among]
    pictures = artist.draw([caption.text for caption in captions], told)
    renders = rendered([case.scene for case in among], artist.side)
    through = artist.through(renders)
    seen = eyes.look(pictures)
    marks = scored(seen, captions, suite.scored)
    samples = [
        Sample(name, caption.text, artist.seed + number, picture, each)
        for number, (caption, picture, each) in enumerate(
            zip(captions, pictures, next(iter(marks.values())), strict=True)
        )
    ]
    found = [
        *read_rows(name, "model", marks),
        *read_rows(name, "renders", scored(eyes.look(renders), captions, suite.scored)),
        *read_rows(name, "autoencoder", scored(eyes.look(through), captions, suite.scored)),
        *read_rows(name, "shuffled", scored(seen, shuffled(among), suite.scored)),
        *read_rows(name, "empty", scored(eyes.look(empty), captions[: len(empty)], suite.scored)),
    ]
    again = rendered([_again(case, suite, number) for number, case in enumerate(among)], artist.side)
    sources = {"model": pictures, "renders": again, "autoencoder": through}
    return _Words(found, samples, _distances(eyes, name, renders, sources), renders, through)


def _edits(artist: Artist, eyes: Eyes, name: str, count: int, told: Callable[[], None]) -> Edited:
    if name == "img2img":
        return redrawn(artist, eyes, _scenes_to_redraw(count), told)
    return repainted(artist, eyes, count, told)


def _scenes_to_redraw(count: int) -> int:
    """So many that all strengths together are about `count` pictures; at least two, one for each kind of exchange."""
    return max(2, count // len(STRENGTHS))


def _total(suites: Sequence[str], count: int) -> int:
    each = [_scenes_to_redraw(count) * len(STRENGTHS) if name == "img2img" else count for name in suites]
    return sum(each) + (min(count, EMPTY) if any(name in SUITES for name in suites) else 0)


def _counter(progressed: Progressed | None, total: int) -> Callable[[], None]:
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if progressed:
            progressed(done, total)

    return told


def _again(case: Case, suite: Suite, number: int) -> Scene:
    """The same scene with other chances: texture, horizon, and things moved a little within their places."""
    rng = np.random.default_rng([suite.seed, number, 2])
    moved = [
        replace(thing, x=thing.x + float(rng.uniform(-1, 1)) * MOVED, y=thing.y + float(rng.uniform(-1, 1)) * MOVED)
        for thing in case.scene.things
    ]
    return replace(
        case.scene,
        things=tuple(moved),
        horizon=float(rng.uniform(0.56, 0.68)),  # what scenes are drawn with
        texture=int(rng.integers(2**31)),
    )


def _distances(
    eyes: Eyes, suite: str, renders: Sequence[Image.Image], sources: Mapping[str, Sequence[Image.Image]]
) -> list[Distance]:
    """The sources' distances from the renders; none of fewer than two pictures."""
    if len(renders) < 2:
        return []
    raw = eyes.embed(renders)
    true = standardised(raw, raw)
    width = median_distance(true)
    features = {source: standardised(eyes.embed(pictures), raw) for source, pictures in sources.items()}
    return [
        Distance(suite, source, len(true), kid(each, true), mmd(each, true, width)) for source, each in features.items()
    ]


def _quality(renders: Sequence[Image.Image], through: Sequence[Image.Image]) -> Quality:
    pairs = list(zip(renders, through, strict=True))
    return Quality(len(pairs), fmean(psnr(*pair) for pair in pairs), fmean(ssim(*pair) for pair in pairs))
