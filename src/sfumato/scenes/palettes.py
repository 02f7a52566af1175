"""The paints: shades of the eight colours, and the colours and lie of every land. RGB in [0, 1]."""

from dataclasses import dataclass

RGB = tuple[float, float, float]

DARKER: dict[str, RGB] = {
    "red": (0.60, 0.07, 0.14),
    "orange": (0.80, 0.34, 0.03),
    "yellow": (0.90, 0.73, 0.02),
    "green": (0.06, 0.41, 0.20),
    "blue": (0.08, 0.22, 0.64),
    "purple": (0.36, 0.12, 0.53),
    "white": (0.77, 0.81, 0.89),
    "black": (0.05, 0.05, 0.07),
}
"""The shade of a colour: darker as a painter would mix it, not greyer."""

PALER: dict[str, RGB] = {
    "red": (0.98, 0.62, 0.60),
    "orange": (1.00, 0.80, 0.55),
    "yellow": (1.00, 0.95, 0.66),
    "green": (0.62, 0.86, 0.58),
    "blue": (0.60, 0.77, 0.98),
    "purple": (0.80, 0.64, 0.92),
    "white": (0.80, 0.85, 0.93),
    "black": (0.42, 0.42, 0.46),
}
"""The second, pale paint of a thing; of a white one, pale grey, for nothing is paler."""

PAPER: RGB = (1.00, 0.98, 0.93)  # that outline drawings are made on
INK: RGB = (0.09, 0.08, 0.11)


@dataclass(frozen=True)
class Land:
    """A sky over two ridges, the far one at the horizon.

    Colours from top to bottom: three of the sky, two of each ridge. `glow` lies over the horizon, `cloud` in the sky;
    their strengths are 0..1. A ridge rises and falls by `swell` picture widths, in `waves` waves across the picture;
    the near one lies `fall` below the far one. `pale` is how much paper shows through in an outline drawing.
    """

    sky: tuple[RGB, RGB, RGB]
    far: tuple[RGB, RGB]
    near: tuple[RGB, RGB]
    glow: RGB
    glowing: float
    cloud: RGB
    cloudy: float
    swell: tuple[float, float]
    waves: tuple[float, float]
    fall: float
    rippled: float = 0.0
    pale: float = 0.55


LANDS = {
    "grass": Land(
        sky=((0.36, 0.66, 0.93), (0.60, 0.82, 0.97), (0.82, 0.93, 0.97)),
        far=((0.50, 0.73, 0.50), (0.42, 0.68, 0.36)),
        near=((0.68, 0.84, 0.36), (0.42, 0.66, 0.22)),
        glow=(1.00, 0.98, 0.88),
        glowing=0.5,
        cloud=(1.00, 1.00, 1.00),
        cloudy=0.75,
        swell=(0.035, 0.02),
        waves=(1.3, 0.8),
        fall=0.09,
    ),
    "sea": Land(
        sky=((0.45, 0.76, 0.92), (0.70, 0.89, 0.95), (0.86, 0.94, 0.92)),
        far=((0.36, 0.72, 0.80), (0.20, 0.58, 0.72)),
        near=((0.16, 0.55, 0.68), (0.05, 0.36, 0.52)),
        glow=(1.00, 0.97, 0.86),
        glowing=0.6,
        cloud=(1.00, 1.00, 1.00),
        cloudy=0.6,
        swell=(0.0, 0.011),
        waves=(1.0, 4.0),
        fall=0.14,
        rippled=0.10,
    ),
    "snow": Land(
        sky=((0.55, 0.63, 0.76), (0.68, 0.74, 0.84), (0.84, 0.87, 0.92)),
        far=((0.80, 0.86, 0.95), (0.72, 0.80, 0.92)),
        near=((0.94, 0.96, 0.99), (0.80, 0.86, 0.95)),
        glow=(0.97, 0.93, 0.93),
        glowing=0.5,
        cloud=(0.90, 0.91, 0.95),
        cloudy=0.6,
        swell=(0.04, 0.022),
        waves=(1.5, 0.9),
        fall=0.08,
        pale=0.4,
    ),
    "desert": Land(
        sky=((0.47, 0.74, 0.85), (0.72, 0.87, 0.87), (0.98, 0.93, 0.80)),
        far=((0.93, 0.76, 0.55), (0.84, 0.62, 0.40)),
        near=((0.95, 0.82, 0.58), (0.78, 0.57, 0.33)),
        glow=(1.00, 0.94, 0.74),
        glowing=0.7,
        cloud=(1.00, 0.97, 0.90),
        cloudy=0.25,
        swell=(0.045, 0.03),
        waves=(1.0, 0.7),
        fall=0.1,
        pale=0.5,
    ),
    "night": Land(
        sky=((0.07, 0.09, 0.28), (0.15, 0.20, 0.46), (0.30, 0.39, 0.66)),
        far=((0.26, 0.34, 0.56), (0.18, 0.25, 0.42)),
        near=((0.21, 0.33, 0.49), (0.12, 0.20, 0.32)),
        glow=(0.62, 0.72, 0.90),
        glowing=0.45,
        cloud=(0.36, 0.42, 0.66),
        cloudy=0.35,
        swell=(0.04, 0.02),
        waves=(1.2, 0.8),
        fall=0.1,
        pale=0.47,
    ),
    "sunset": Land(
        sky=((0.36, 0.26, 0.56), (0.86, 0.45, 0.52), (0.99, 0.72, 0.45)),
        far=((0.52, 0.30, 0.44), (0.42, 0.24, 0.38)),
        near=((0.42, 0.24, 0.38), (0.25, 0.15, 0.28)),
        glow=(1.00, 0.88, 0.55),
        glowing=0.85,
        cloud=(0.98, 0.62, 0.58),
        cloudy=0.45,
        swell=(0.04, 0.02),
        waves=(1.1, 0.8),
        fall=0.09,
        pale=0.47,
    ),
}
"""The six backgrounds, by name."""
