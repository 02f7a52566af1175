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
    "red": (0.84, 0.16, 0.18),
    "orange": (0.95, 0.53, 0.13),
    "yellow": (0.97, 0.84, 0.22),
    "green": (0.18, 0.62, 0.28),
    "blue": (0.17, 0.40, 0.86),
    "purple": (0.52, 0.25, 0.70),
    "white": (0.97, 0.97, 0.97),
    "black": (0.13, 0.13, 0.15),
}
"""Every colour as RGB in [0, 1]."""

SIZES = {"small": 0.135, "medium": 0.185, "large": 0.24}
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
    """A sky over a ground: two vertical gradients (RGB in [0, 1], top first) and the words for them."""

    sky: tuple[tuple[float, float, float], tuple[float, float, float]]
    ground: tuple[tuple[float, float, float], tuple[float, float, float]]
    phrases: tuple[str, ...]
    nouns: tuple[str, ...]


BACKGROUNDS = {
    "grass": Background(
        sky=((0.52, 0.76, 0.95), (0.85, 0.93, 0.98)),
        ground=((0.45, 0.74, 0.33), (0.27, 0.55, 0.22)),
        phrases=("on green grass", "on the grass", "in a green meadow", "on a lawn"),
        nouns=("green grass", "a green meadow"),
    ),
    "sea": Background(
        sky=((0.68, 0.86, 0.95), (0.93, 0.97, 0.98)),
        ground=((0.22, 0.56, 0.78), (0.09, 0.33, 0.58)),
        phrases=("on the sea", "on blue water", "at the ocean", "by the sea"),
        nouns=("the blue sea", "the ocean"),
    ),
    "snow": Background(
        sky=((0.66, 0.71, 0.80), (0.82, 0.85, 0.90)),
        ground=((0.98, 0.98, 1.0), (0.88, 0.91, 0.96)),
        phrases=("in the snow", "on white snow", "in winter"),
        nouns=("white snow", "a snowy field"),
    ),
    "desert": Background(
        sky=((0.70, 0.84, 0.90), (0.97, 0.93, 0.82)),
        ground=((0.93, 0.80, 0.50), (0.79, 0.62, 0.32)),
        phrases=("in the desert", "on yellow sand", "on the sand"),
        nouns=("the desert", "yellow sand"),
    ),
    "night": Background(
        sky=((0.04, 0.06, 0.18), (0.15, 0.20, 0.40)),
        ground=((0.12, 0.16, 0.22), (0.06, 0.08, 0.12)),
        phrases=("at night", "in the dark", "under a night sky"),
        nouns=("a dark night", "the night sky"),
    ),
    "sunset": Background(
        sky=((0.42, 0.26, 0.52), (0.98, 0.60, 0.35)),
        ground=((0.42, 0.26, 0.30), (0.24, 0.15, 0.19)),
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
