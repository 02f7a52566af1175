"""The words of the drawn world and what they look like: kinds, colours, sizes, places, backgrounds, styles."""

from dataclasses import dataclass

KINDS = {
    "house": ("house", "cottage"),
    "tree": ("tree",),
    "flower": ("flower", "blossom"),
    "car": ("car", "automobile"),
    "boat": ("boat", "ship"),
    "fish": ("fish",),
    "ball": ("ball",),
    "star": ("star",),
    "moon": ("moon", "crescent moon"),
    "heart": ("heart",),
}
"""Every kind of thing, with the nouns that name it."""

COLOURS = {
    "red": (0.86, 0.14, 0.17),
    "orange": (0.97, 0.51, 0.07),
    "yellow": (0.99, 0.86, 0.15),
    "green": (0.12, 0.58, 0.27),
    "blue": (0.14, 0.36, 0.88),
    "purple": (0.54, 0.23, 0.73),
    "white": (0.97, 0.97, 0.97),
    "black": (0.13, 0.13, 0.15),
}
"""Every colour as RGB in [0, 1]."""

SIZES = {"small": 0.125, "medium": 0.18, "large": 0.255}
"""Half the extent of a thing, in picture widths."""

SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("medium-sized",), "large": ("large", "big", "huge")}

COLUMNS = (0.25, 0.5, 0.75)
ROWS = (0.25, 0.5, 0.75)
"""Centres of the three columns and rows, in picture widths; `PLACES` are their nine crossings, row by row."""

PLACES = {
    "top left": ("at the top left", "in the top left corner", "in the upper left"),
    "top": ("at the top", "in the top centre", "at the upper edge"),
    "top right": ("at the top right", "in the top right corner", "in the upper right"),
    "left": ("on the left", "on the left side", "at the left"),
    "middle": ("in the middle", "in the centre", "in the center"),
    "right": ("on the right", "on the right side", "at the right"),
    "bottom left": ("at the bottom left", "in the bottom left corner", "in the lower left"),
    "bottom": ("at the bottom", "in the bottom centre", "at the lower edge"),
    "bottom right": ("at the bottom right", "in the bottom right corner", "in the lower right"),
}

RELATIONS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}


@dataclass(frozen=True)
class Background:
    """The words for a background; `palettes.LANDS` has its colours."""

    phrases: tuple[str, ...]
    nouns: tuple[str, ...]


BACKGROUNDS = {
    "grass": Background(
        phrases=("on green grass", "on the grass", "in a green meadow", "on a lawn"),
        nouns=("green grass", "a green meadow"),
    ),
    "sea": Background(
        phrases=("on the sea", "on blue water", "at the ocean", "by the sea"),
        nouns=("the blue sea", "the ocean"),
    ),
    "snow": Background(
        phrases=("in the snow", "on white snow", "in winter"),
        nouns=("white snow", "a snowy field"),
    ),
    "desert": Background(
        phrases=("in the desert", "on yellow sand", "on the sand"),
        nouns=("the desert", "yellow sand"),
    ),
    "night": Background(
        phrases=("at night", "in the dark", "under a night sky"),
        nouns=("a dark night", "the night sky"),
    ),
    "sunset": Background(
        phrases=("at sunset", "in the evening", "at dusk"),
        nouns=("a sunset", "an evening sky"),
    ),
}

STYLES = {
    "shaded": ("a shaded drawing of", "a painting of"),
    "flat": ("a flat drawing of", "a paper cut of"),
    "outline": ("an outline drawing of", "a cartoon of"),
}

UNSEEN_PAIRS = frozenset({("star", "green"), ("car", "purple"), ("heart", "blue"), ("house", "black")})
"""(kind, colour) pairs that no training scene shows, for measuring generalisation."""
