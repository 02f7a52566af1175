"""A model's edits of true renders: img2img at several strengths, and inpainting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from sfumato.evaluate.artist import Artist
from sfumato.evaluate.edits import added, additions, exchanged, exchanges
from sfumato.evaluate.readings import Eyes, rendered, rows
from sfumato.evaluate.rows import Row, Sample
from sfumato.evaluate.seams import Seam, outside_unchanged, seam
from sfumato.scenes.score import Score

STRENGTHS = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Edited:
    """What an edit suite found."""

    rows: list[Row]
    samples: list[Sample]
    seams: list[Seam]


def redrawn(artist: Artist, eyes: Eyes, count: int, told: Callable[[], None]) -> Edited:
    """img2img of `count` scenes at each strength: is the new there, and is the thing still where and what it was?"""
    edits = exchanges(count)
    starts, truths = (rendered(scenes, artist.side) for scenes in ([e.before for e in edits], [e.after for e in edits]))
    found: list[Row] = []
    samples: list[list[Sample]] = []

    def judge(source: str, pictures: Sequence[Image.Image]) -> dict[str, list[Score]]:
        scores = {
            name: [exchanged(reading, edit) for reading, edit in zip(readings, edits, strict=True)]
            for name, readings in eyes.look(pictures).items()
        }
        found.extend(rows("img2img", source, scores))
        return scores

    for strength in STRENGTHS:
        pictures = []
        for number, (edit, start) in enumerate(zip(edits, starts, strict=True)):
            pictures.append(artist.redraw(start, edit.caption.text, number, strength))
            told()
        marks = next(iter(judge(_named(strength), pictures).values()))
        samples.append(
            [
                Sample(
                    "img2img",
                    f"{strength:g}: {edit.caption.text}",
                    artist.seed + number,
                    picture,
                    each,
                    _named(strength),
                    start,
                )
                for number, (edit, start, picture, each) in enumerate(zip(edits, starts, pictures, marks, strict=True))
            ]
        )
    judge("renders", truths)
    judge("start", starts)
    return Edited(found, [sample for of_one in zip(*samples, strict=True) for sample in of_one], [])


def repainted(artist: Artist, eyes: Eyes, count: int, told: Callable[[], None]) -> Edited:
    """Inpainting of `count` scenes: is the thing in the mask, is the rest as it was, and does the border show?"""
    edits = additions(count)
    side = artist.side
    starts, truths = (rendered(scenes, side) for scenes in ([e.before for e in edits], [e.after for e in edits]))
    masks = [edit.mask(side) for edit in edits]
    pictures = []
    for number, (edit, start, mask) in enumerate(zip(edits, starts, masks, strict=True)):
        pictures.append(artist.repaint(start, mask, edit.caption.text, number))
        told()
    found: list[Row] = []
    shown: list[Score] = []
    seen_from = {"model": pictures, "renders": truths, "start": starts}
    for source, made in seen_from.items():
        same = [outside_unchanged(*each) for each in zip(starts, made, masks, strict=True)] if source == "model" else []
        scores = {
            name: [
                added(reading, edit, same[number] if same else None)
                for number, (reading, edit) in enumerate(zip(readings, edits, strict=True))
            ]
            for name, readings in eyes.look(made).items()
        }
        found.extend(rows("inpainting", source, scores))
        shown = shown or next(iter(scores.values()))
    samples = [
        Sample("inpainting", edit.caption.text, artist.seed + number, picture, each, before=_masked(start, mask))
        for number, (edit, picture, each, start, mask) in enumerate(
            zip(edits, pictures, shown, starts, masks, strict=True)
        )
    ]
    return Edited(found, samples, [seam(source, made, masks) for source, made in seen_from.items()])


def _named(strength: float) -> str:
    return f"strength {strength:g}"


def _masked(start: Image.Image, mask: Image.Image) -> Image.Image:
    return Image.composite(Image.new("RGB", start.size, (128, 128, 128)), start, mask)
