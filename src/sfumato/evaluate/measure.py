"""How well a model draws what it is asked for, next to what the reader and the autoencoder allow."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from PIL import Image

from sfumato.evaluate.report import Report, Row, Sample, summarise
from sfumato.evaluate.suites import SUITES, Case, cases, check, shuffled
from sfumato.events import Finished
from sfumato.generation import stream
from sfumato.images import to_levels, to_pictures, to_pixels
from sfumato.model import Model
from sfumato.operations import reconstruct
from sfumato.request import Request
from sfumato.scenes.captions import Caption
from sfumato.scenes.reader import Reader, embedded_reader, read
from sfumato.scenes.render import render
from sfumato.scenes.score import Score, score

COUNT = 200  # prompts a suite: a share near 0.9 is then known within 4 %
BATCH = 32  # pictures through the networks together

Progressed = Callable[[int, int], None]
"""Told (pictures drawn, pictures in all) after each."""


@dataclass(frozen=True)
class _Drawn:
    """What the model drew for a suite: the pictures, the request that it was resolved to, and the seconds it took."""

    pictures: list[Image.Image]
    request: Request
    seconds: float


def evaluate(
    model: Model,
    suites: Sequence[str] = tuple(SUITES),
    count: int = COUNT,
    *,
    settings: Request | None = None,
    reader: Reader | None = None,
    progressed: Progressed | None = None,
) -> Report:
    """Draws `count` prompts of each suite, reads the pictures, and says how much of what was asked for is there.

    `settings` is a request whose prompt is ignored and whose other fields hold; picture i of a suite uses its seed + i
    (0 unless said). The model's own defaults are measured without it. The reader is the package's own unless given.
    Raises RequestError for a suite that does not exist and for what the model cannot do.
    """
    check(suites, count)
    asked = _settings(settings)
    reader = reader or embedded_reader()
    rows: list[Row] = []
    samples: list[Sample] = []
    decibels: list[float] = []
    seconds, last = 0.0, asked
    for number, name in enumerate(suites):
        among = cases(SUITES[name], count)
        drawn = _draw(model, among, asked, _from(progressed, number * count, len(suites) * count))
        made = _scores(reader, drawn.pictures, [case.caption for case in among])
        seeds = range(drawn.request.seed or 0, (drawn.request.seed or 0) + count)
        samples += [
            Sample(name, case.caption.text, seed, picture, marks)
            for case, seed, picture, marks in zip(among, seeds, drawn.pictures, made, strict=True)
        ]
        rows.append(summarise(name, "model", made))
        calibration, psnr = _calibration(model, reader, name, among, drawn)
        rows += calibration
        decibels += psnr
        seconds, last = seconds + drawn.seconds, drawn.request
    return Report(model.name, _told(last), tuple(rows), tuple(samples), fmean(decibels), seconds / len(samples))


def _settings(settings: Request | None) -> Request:
    """What is asked of each picture but the prompt: a fixed seed and a batch that is quick, unless said otherwise."""
    asked = settings or Request()
    batch = asked.batch or (1 if asked.strict else BATCH)
    return replace(asked, seed=asked.seed or 0, batch=batch, count=1)


def _told(request: Request) -> dict[str, Any]:
    """The resolved settings without the prompts, for the report."""
    return {key: value for key, value in request.to_dict().items() if key not in ("prompt", "count")}


def _from(progressed: Progressed | None, already: int, total: int) -> Callable[[int], None]:
    return lambda done: progressed(already + done, total) if progressed else None


def _draw(model: Model, among: Sequence[Case], asked: Request, progressed: Callable[[int], None]) -> _Drawn:
    """The model's pictures of the cases' captions, in order."""
    request = replace(asked, prompt=tuple(case.caption.text for case in among))
    finished: list[Finished] = []
    began = time.perf_counter()
    for event in stream(model, request, metadata=False):
        if isinstance(event, Finished):
            finished.append(event)
            progressed(len(finished))
    seconds = time.perf_counter() - began
    finished.sort(key=lambda event: event.index)
    return _Drawn([event.picture for event in finished], finished[0].request, seconds)


def _calibration(
    model: Model, reader: Reader, suite: str, among: Sequence[Case], drawn: _Drawn
) -> tuple[list[Row], list[float]]:
    """The rows that the model's figures are to be seen beside, and the autoencoder's PSNR of each render."""
    captions = [case.caption for case in among]
    side = min(drawn.pictures[0].size) // model.stride * model.stride
    renders = [to_pictures(to_levels(render([case.scene], side)))[0] for case in among]
    through = [reconstruct(model, picture) for picture in renders]
    rows = [
        summarise(suite, "renders", _scores(reader, renders, captions)),
        summarise(suite, "autoencoder", _scores(reader, [each.picture for each in through], captions)),
        summarise(suite, "shuffled", _scores(reader, drawn.pictures, shuffled(among))),
    ]
    return rows, [each.psnr for each in through]


def _scores(reader: Reader, pictures: Sequence[Image.Image], captions: Sequence[Caption]) -> list[Score]:
    readings = [
        reading
        for at in range(0, len(pictures), BATCH)
        for reading in read(reader, to_pixels(pictures[at : at + BATCH]))
    ]
    return [score(reading, caption) for reading, caption in zip(readings, captions, strict=True)]
