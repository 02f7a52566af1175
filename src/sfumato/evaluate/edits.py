"""What is asked of edits: one attribute of a picture exchanged, or a thing painted into a free place; and the marks."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from sfumato.evaluate.suites import Suite, fitting, saying
from sfumato.scenes.captions import Caption
from sfumato.scenes.reader import Reading, ReadThing
from sfumato.scenes.scene import Scene, Thing
from sfumato.scenes.score import Mark, Score
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, SIZES, UNSEEN_PAIRS

ROOM = 0.03  # of a picture width between a thing and the edge of the mask that it is painted into
SAYS = ("colour", "background")


def _room_for_two(drawn: Scene, index: int) -> bool:
    """Does the square around the second thing leave the first one out, and lie in the picture?"""
    first, second = drawn.things
    half = SIZES[second.size] + ROOM
    apart = max(abs(first.x - second.x), abs(first.y - second.y))
    return apart > half + SIZES[first.size] + ROOM and all(half < at < 1 - half for at in (second.x, second.y))


REDRAWN = Suite("one attribute exchanged, by strength", 9_000_011)
REPAINTED = Suite("a thing in a free place", 9_000_012, (0.0, 1.0), fits=_room_for_two)

EDITS = {"img2img": REDRAWN, "inpainting": REPAINTED}
"""The suites that begin from a picture."""


@dataclass(frozen=True)
class Edit:
    """A scene to begin from, what it should become, the words for that, and for repainting the part, in pixels of 1."""

    before: Scene
    after: Scene
    caption: Caption
    part: tuple[float, float, float, float] | None = None

    def mask(self, side: int) -> Image.Image:
        """White where it is repainted."""
        assert self.part is not None
        mask = Image.new("L", (side, side), 0)
        left, top, right, bottom = (round(at * side) for at in self.part)
        ImageDraw.Draw(mask).rectangle((left, top, right - 1, bottom - 1), fill=255)
        return mask


def exchanges(count: int) -> list[Edit]:
    """Scenes of one thing, in turn with another colour and with another background; the caption says the new scene."""
    return [_exchange(index) for index in range(count)]


def _exchange(index: int) -> Edit:
    before, rng = fitting(REDRAWN, index), np.random.default_rng([REDRAWN.seed, index, 1])
    (thing,) = before.things
    if index % 2:
        others = [name for name in BACKGROUNDS if name != before.background]
        after = replace(before, background=str(rng.choice(others)))
    else:
        others = [name for name in COLOURS if name != thing.colour and (thing.kind, name) not in UNSEEN_PAIRS]
        after = replace(before, things=(replace(thing, colour=str(rng.choice(others))),))
    return Edit(before, after, saying(after, SAYS, rng))


def additions(count: int) -> list[Edit]:
    """Scenes of one thing with another one to be painted beside it; the caption says that one and the background."""
    return [_addition(index) for index in range(count)]


def _addition(index: int) -> Edit:
    after = fitting(REPAINTED, index)
    first, second = after.things
    half = SIZES[second.size] + ROOM
    part = (second.x - half, second.y - half, second.x + half, second.y + half)
    words = saying(replace(after, things=(second,)), SAYS, np.random.default_rng([REPAINTED.seed, index, 1]))
    return Edit(replace(after, things=(first,)), after, words, part)


def exchanged(reading: Reading, edit: Edit) -> Score:
    """Kind and place of the thing as before, and the new colour or background: three marks.

    The thing is the one that is most as it should be, where several are seen.
    """
    (thing,) = edit.after.things
    best = max(reading.things, key=lambda seen: _likeness(seen, thing), default=None)
    marks = [
        _mark("kind", thing.kind, best.kind if best else None),
        _mark("place", thing.place, best.place if best else None),
    ]
    if edit.after.background != edit.before.background:
        return Score((*marks, _mark("changed", edit.after.background, reading.background)))
    return Score((*marks, _mark("changed", thing.colour, best.colour if best else None)))


def added(reading: Reading, edit: Edit, unchanged: bool | None) -> Score:
    """Kind and colour of what is seen in the mask, whether the old thing is still seen, and the bytes outside."""
    assert edit.part is not None
    first, second = edit.after.things
    left, top, right, bottom = edit.part
    inside = [thing for thing in reading.things if left <= thing.x <= right and top <= thing.y <= bottom]
    best = max(inside, key=lambda seen: _likeness(seen, second), default=None)
    kept = any((t.kind, t.colour, t.place) == (first.kind, first.colour, first.place) for t in reading.things)
    marks = [
        _mark("kind", second.kind, best.kind if best else None),
        _mark("colour", second.colour, best.colour if best else None),
        Mark("kept", f"{first.colour} {first.kind}", None if not kept else f"{first.colour} {first.kind}", kept),
    ]
    if unchanged is not None:
        marks.append(Mark("outside", "the same bytes", "the same bytes" if unchanged else "others", unchanged))
    return Score(tuple(marks))


def _likeness(seen: ReadThing, thing: Thing) -> tuple[int, float]:
    alike = sum(getattr(seen, name) == getattr(thing, name) for name in ("kind", "place", "colour"))
    return alike, seen.sure


def _mark(attribute: str, said: str, seen: str | None) -> Mark:
    return Mark(attribute, said, seen, said == seen)
