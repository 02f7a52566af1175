"""A second reader of the drawn world, of rules and no training, to hold against the learned one.

The background is that of the nearest palette, the style that of a few statistics; what the background does not explain
falls into connected components; each is compared with the silhouettes that the renderer draws, and its colour is the
palette's that most of it is near to.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.scenes.lands import SIDE, land_of, strangeness, style_of
from sfumato.scenes.palettes import DARKER, INK, PALER, RGB
from sfumato.scenes.reader import MOST_THINGS, Reading, ReadThing
from sfumato.scenes.regions import components, filled, necked, opened
from sfumato.scenes.shapes import CANVAS, GLASS, LEAF, METAL, POLLEN, RUBBER, WOOD
from sfumato.scenes.silhouettes import Match, best_match, templates
from sfumato.scenes.vocabulary import COLOURS, SIZES

STRANGE = 0.11  # of colour space's unit cube, beyond which a pixel is no background; a tint is at most 0.035
LINES = {"shaded": 2, "flat": 2, "outline": 4}  # pixels: what is thinner is a star, an edge or an ink line of a ridge
AGAIN = 3  # pixels from what is thicker, where thin parts count again: masts, fins, stems
SMALLEST = 40  # pixels of SIDE x SIDE: half of the smallest moon
NECKS = (3, 5, 7)  # pixels: things that touch do so in places thinner than this
CORE = 9  # pixels of a part that are no neck
CERTAIN = 0.8  # a match beyond which nobody looks for necks
GAIN = 0.05  # that parts must be better than the whole
COVERED = 0.7  # of a component that lies within a thing that was found: a sail beside its hull
LIKE = 0.42  # of a component and its template, below which it is no thing
BLACK = list(COLOURS).index("black")
BESIDE = 0.3  # times the votes for black that others need in a cartoon to count alone: where ink ends it looks black
FIXED: tuple[RGB, ...] = (INK, WOOD, GLASS, RUBBER, METAL, LEAF, CANVAS, POLLEN)
INKED_BLACK: tuple[RGB, ...] = ((0.19, 0.19, 0.22), (0.14, 0.14, 0.17), PALER["black"])  # as cartoons have it


def read_by_rules(pixels: Tensor) -> list[Reading]:
    """What is in each picture of [B, 3, H, W] in [-1, 1]: at most three things, the most certain ones first."""
    colours = F.interpolate(pixels.float().cpu(), size=(SIDE, SIDE), mode="area") / 2 + 0.5
    return [_read(each.clamp(0, 1)) for each in colours]


def _read(colours: Tensor) -> Reading:
    style = style_of(colours)
    land = land_of(colours, style)
    strange = strangeness(colours, land) > STRANGE
    mask = opened(filled(strange[None]), LINES[style], AGAIN)
    labels = components(mask)[0]
    areas = torch.bincount(labels.flatten())
    areas[0] = 0
    numbers = areas.argsort(descending=True)[: int((areas >= SMALLEST).sum())]
    found: list[ReadThing] = []
    taken = torch.zeros_like(labels, dtype=torch.bool)
    for number in numbers.tolist():
        for part, match, colour in _things_in(colours, labels == number, style):
            if match.likeness >= LIKE and int((part & taken).sum()) <= COVERED * int(part.sum()):
                found.append(_thing(match, colour))
                taken |= _square(match)
    found.sort(key=lambda thing: -thing.sure)
    return Reading(tuple(found[:MOST_THINGS]), land.background, style)


Found = tuple[Tensor, Match, str]  # a part of the mask, what it is like, and its colour


def _things_in(colours: Tensor, part: Tensor, style: str) -> list[Found]:
    """The thing that a component is like, or those that it falls into at its necks, if they are more like things."""
    best = [_matched(colours, part, style)]
    if best[0][1].likeness > CERTAIN:
        return best
    for side in NECKS:
        parts = [_matched(colours, each, style) for each in necked(part, side, CORE)]
        if len(parts) > 1 and _likeness(parts) > _likeness(best) + GAIN:
            best = parts
    return best


def _matched(colours: Tensor, part: Tensor, style: str) -> Found:
    colour, painted = _paint(colours, part, style)
    return part, best_match(part, painted, templates(SIDE, inked=style == "outline")), colour


def _likeness(found: list[Found]) -> float:
    """The mean over the pixels of all parts."""
    areas = [float(part.sum()) for part, _, _ in found]
    return sum(area * match.likeness for area, (_, match, _) in zip(areas, found, strict=True)) / sum(areas)


def _square(match: Match) -> Tensor:
    """The square that a match fills, [SIDE, SIDE]."""
    at = torch.arange(SIDE) + 0.5
    half = SIZES[match.size] * SIDE
    return ((at[:, None] - match.y).abs() < half) & ((at - match.x).abs() < half)


def _thing(match: Match, colour: str) -> ReadThing:
    x, y = (min(max(at / SIDE, 0.0), 1.0) for at in (match.x, match.y))
    return ReadThing(match.kind, colour, match.size, x, y, match.likeness)


def _paint(colours: Tensor, part: Tensor, style: str) -> tuple[str, Tensor]:
    """The colour that most pixels of a component are near to, and which of them are, [H, W].

    Ink, glass, wood and the like are colours of their own and have no vote.
    """
    black = INKED_BLACK if style == "outline" else (COLOURS["black"], DARKER["black"], PALER["black"])
    own = [black if name == "black" else (COLOURS[name], DARKER[name], PALER[name]) for name in COLOURS]
    fixed = FIXED if style == "outline" else FIXED[1:]
    paints = torch.tensor([*own, *((paint,) * 3 for paint in fixed)])  # [names, 3, RGB]
    away = (colours.permute(1, 2, 0)[:, :, None, None] - paints).norm(dim=-1)  # [H, W, names, shades]
    nearest = away.amin(dim=-1).argmin(dim=-1)
    votes = torch.bincount(nearest[part], minlength=len(paints))[: len(COLOURS)]
    if style == "outline" and votes.sum() > (1 + BESIDE) * votes[BLACK]:
        votes[BLACK] = 0
    best = int(votes.argmax())
    return list(COLOURS)[best], part & (nearest == best)
