"""A reading against a caption: every claim is right or wrong, and what was not said is not judged."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import permutations

from sfumato.scenes.captions import Caption, Claim, relation_between
from sfumato.scenes.reader import Reading, ReadThing

ATTRIBUTES = ("background", "colour", "kind", "place", "size", "style", "relation", "count")
"""What a caption can claim, in the order of tables; "count" is that there are as many things as it names."""

MARGIN = 0.1  # of a picture width that "left of" asks for at least; centres in the drawn world are 0.16 apart


@dataclass(frozen=True)
class Mark:
    """One claim: what was said, what the reader saw (None: no such thing), and whether the claim holds."""

    attribute: str
    said: str
    seen: str | None
    right: bool


@dataclass(frozen=True)
class Score:
    """The marks of one picture. `strict` is that every one of them is right."""

    marks: tuple[Mark, ...]

    @property
    def strict(self) -> bool:
        return all(mark.right for mark in self.marks)

    def only(self, attributes: Collection[str]) -> "Score":
        """The marks of some attributes."""
        return Score(tuple(mark for mark in self.marks if mark.attribute in attributes))

    @property
    def wrong(self) -> tuple[Mark, ...]:
        return tuple(mark for mark in self.marks if not mark.right)


def score(reading: Reading, caption: Caption) -> Score:
    """The marks of a picture that was read as `reading` and asked for by `caption`.

    Claims are matched to the things seen in the way that makes most marks right, and of equally good ways the one that
    names most kinds rightly; a claim without a thing is wrong in all that it says. Each thing answers one claim.
    """
    whole = [
        Mark("count", str(len(caption.claims)), str(len(reading.things)), len(caption.claims) == len(reading.things))
    ]
    if caption.background is not None:
        whole.append(_mark("background", caption.background, reading.background))
    if caption.style is not None:
        whole.append(_mark("style", caption.style, reading.style))
    seats: list[ReadThing | None] = [*reading.things, *[None] * len(caption.claims)]
    best = max(
        (_marks(caption, things) for things in permutations(seats, len(caption.claims))),
        key=lambda marks: (sum(m.right for m in marks), sum(m.right for m in marks if m.attribute == "kind")),
    )
    return Score((*best, *whole))


def holds(relation: str, first: ReadThing, second: ReadThing) -> bool:
    """Whether the first thing's centre lies so to the second's, by a tenth of the picture at least.

    A thing up and to the left of another one is left of it as well as above it.
    """
    dx, dy = first.x - second.x, first.y - second.y
    distance = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation]
    return distance >= MARGIN


def _marks(caption: Caption, things: tuple[ReadThing | None, ...]) -> list[Mark]:
    marks = [mark for claim, thing in zip(caption.claims, things, strict=True) for mark in _claimed(claim, thing)]
    if caption.relation is not None:
        first, second = things[:2]
        if first is None or second is None:
            marks.append(Mark("relation", caption.relation, None, right=False))
        else:
            right = holds(caption.relation, first, second)
            marks.append(Mark("relation", caption.relation, relation_between(first, second), right))
    return marks


def _claimed(claim: Claim, thing: ReadThing | None) -> list[Mark]:
    said = {"kind": claim.kind, "colour": claim.colour, "place": claim.place, "size": claim.size}
    return [
        _mark(attribute, word, None if thing is None else getattr(thing, attribute))
        for attribute, word in said.items()
        if word is not None
    ]


def _mark(attribute: str, said: str, seen: str | None) -> Mark:
    return Mark(attribute, said, seen, said == seen)
