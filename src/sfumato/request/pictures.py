"""The parts of a request about what pictures begin from and how start pictures are fitted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sfumato.errors import RequestError
from sfumato.request.checks import check_choice, check_integer, check_text, checked_name, checked_number
from sfumato.request.parts import checked_part

SEED_LIMIT = 2**64  # what a torch generator takes; ComfyUI's range too
SIDE_RANGE = (16, 8192)  # pixels; 16 is two latent cells, 8192 is where the largest tiled pictures end

ResizeMode = Literal["crop", "stretch", "fill"]
"""How a picture takes another size: cropped to fill it, stretched, or whole with its edges drawn out."""

StartResize = Literal["crop", "stretch", "fill", "latent"]
"""How a start picture does: as any, or its latent is stretched."""

StrengthRule = Literal["share", "a1111", "whole"]
"""How a strength becomes a number of steps: as diffusers, stable-diffusion-webui or ComfyUI count."""

Masking = Literal["network", "blend"]
"""How a mask acts: the network sees it, or what is kept is put back at every step."""

MaskedContent = Literal["original", "fill", "noise", "nothing"]
"""What is where a mask repaints before noise is added: the picture, the colours around, noise, an empty latent."""


OutpaintFill = Literal["edge", "around", "mean", "noise"]
"""What is in the new part before noise is added: the edge drawn out, the colours around, their mean, coloured noise."""


@dataclass(frozen=True)
class Outpaint:
    """Pixels that a picture grows by at each side, and within how many of the old ones the two fade into each other.

    Raises RequestError.
    """

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    feather: int = 32
    fill: OutpaintFill = "edge"

    def __post_init__(self) -> None:
        for name in ("left", "top", "right", "bottom", "feather"):
            check_integer(f"outpaint.{name}", getattr(self, name), 0, SIDE_RANGE[1], optional=False)
        check_choice("outpaint.fill", self.fill, OutpaintFill, optional=False)
        if not (self.left or self.top or self.right or self.bottom):
            raise RequestError("outpaint adds nothing at any side; give left, top, right or bottom", "outpaint")

    def grown(self, width: int, height: int) -> tuple[int, int]:
        """The size of a picture of this size when it has grown."""
        return width + self.left + self.right, height + self.top + self.bottom

    def to_dict(self) -> dict[str, Any]:
        """The sides and the rest as JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def checked_outpaint(value: object) -> Outpaint | None:
    """What stands for the sides: an Outpaint or its fields. Raises RequestError."""
    if value is None:
        return None
    return checked_part(value, Outpaint, "outpaint", "its sides such as left and top, feather and fill")


@dataclass(frozen=True)
class Variation:
    """A little of another seed's start noise: 0 is the request's own picture, 1 that of `seed`; a random one if None.

    Picture i of a request uses `seed` + i, and all of them the request's seed. Raises RequestError.
    """

    strength: float
    seed: int | None = None

    def __post_init__(self) -> None:
        strength = checked_number("variation", self.strength, 0.0, 1.0)
        if strength is None:
            raise RequestError("variation has no strength; it must be a number from 0 to 1", "variation")
        object.__setattr__(self, "strength", strength)
        check_integer("variation", self.seed, 0, SEED_LIMIT - 1)

    def to_dict(self) -> dict[str, Any]:
        """The variation as JSON values."""
        return {"strength": self.strength} | ({} if self.seed is None else {"seed": self.seed})


def checked_variation(value: object) -> Variation | None:
    """What stands for a variation: one, a strength, or strength and seed. Raises RequestError."""
    return None if value is None else checked_part(value, Variation, "variation", "a strength, or strength and seed")


def checked_size(name: str, value: object) -> tuple[int, int] | None:
    """A pair of a width and a height in pixels. Raises RequestError that names the field."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    if len(pair) != 2:
        raise RequestError(f"{name} is {value!r}; it must be a width and a height in pixels", name)
    for side in pair:
        check_integer(name, side, *SIDE_RANGE, optional=False)
    return pair[0], pair[1]


LATENT_UPSCALERS: dict[str, tuple[str, bool]] = {
    "latent": ("bilinear", False),
    "latent_antialiased": ("bilinear", True),
    "latent_bicubic": ("bicubic", False),
    "latent_bicubic_antialiased": ("bicubic", True),
    "latent_nearest": ("nearest", False),
    "latent_nearest_exact": ("nearest-exact", False),
}
"""How latents are enlarged: PyTorch's mode, and whether it is antialiased."""

PIXEL_UPSCALERS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Hires:
    """A second pass over a picture that was drawn small and enlarged: "hires fix".

    scale           how many times as wide and high, 2 if there is no size either
    size            (width, height) instead; what does not fit its shape is cropped
    upscaler        one of LATENT_UPSCALERS or PIXEL_UPSCALERS, A1111's label of one, or a network's name or file
    strength        how much of the way back to noise the second pass goes
    strength_rule   as that of the request: "whole" runs all `steps`, as A1111 and ComfyUI do
    others          those of the second pass; None is what the first has

    Raises RequestError.
    """

    scale: float | None = None
    size: tuple[int, int] | None = None
    upscaler: str = "latent"
    strength: float = 0.7
    strength_rule: StrengthRule | None = None
    steps: int | None = None
    sampler: str | None = None
    spacing: str | None = None
    guidance: float | None = None
    prompt: str | None = None
    negative_prompt: str | None = None

    @property
    def says_other_words(self) -> bool:
        """Has the second pass a prompt of its own?"""
        return self.prompt is not None or self.negative_prompt is not None

    def __post_init__(self) -> None:
        if self.scale is not None and self.size is not None:
            raise RequestError(f"hires has a scale, {self.scale}, and a size, {self.size}; leave out one", "hires")
        scale = 2.0 if self.scale is None and self.size is None else checked_number("hires.scale", self.scale, 1.0, 8.0)
        strength = checked_number("hires.strength", self.strength, 0.0, 1.0)
        if strength is None:
            raise RequestError("hires.strength is None; it must be a number from 0 to 1", "hires.strength")
        checked = {
            "scale": scale,
            "size": checked_size("hires.size", self.size),
            "strength": strength,
            "guidance": checked_number("hires.guidance", self.guidance, 0.0, 100.0),
            "upscaler": checked_upscaler("hires.upscaler", self.upscaler),
            "sampler": checked_name("hires.sampler", self.sampler),
            "spacing": checked_name("hires.spacing", self.spacing),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_integer("hires.steps", self.steps, 1, 1000)
        check_choice("hires.strength_rule", self.strength_rule, StrengthRule)
        for name in ("prompt", "negative_prompt"):
            if getattr(self, name) is not None:
                check_text(f"hires.{name}", getattr(self, name))

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """The width and height of the second pass over pictures of this size."""
        if self.size is not None:
            return self.size
        assert self.scale is not None
        return round(width * self.scale), round(height * self.scale)

    def to_dict(self) -> dict[str, Any]:
        """The second pass as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}


def checked_hires(value: object) -> Hires | None:
    """What stands for a second pass: one, its fields, or a scale. Raises RequestError."""
    if value is None:
        return None
    return checked_part(value, Hires, "hires", "a scale, or its fields such as scale, upscaler and strength")


@dataclass(frozen=True)
class Windows:
    """Parts of a large picture that the network sees one at a time at each step, blended where they overlap.

    size       pixels of a part's side; None is the model's own size
    overlap    pixels that neighbours share at least; None is a quarter of the size

    Raises RequestError.
    """

    size: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        check_integer("windows.size", self.size, 64, SIDE_RANGE[1])
        check_integer("windows.overlap", self.overlap, 8, SIDE_RANGE[1])
        if self.size is not None and self.overlap is not None and self.overlap >= self.size:
            raise RequestError(
                f"windows.overlap is {self.overlap}; it must be below the size, {self.size}", "windows.overlap"
            )

    def filled(self, size: int) -> "Windows":
        """The same with numbers for a model of this size."""
        side = self.size or size
        return Windows(side, min(self.overlap or side // 4, side - 1))

    def to_dict(self) -> dict[str, Any]:
        """The size and the overlap as JSON values."""
        return {"size": self.size, "overlap": self.overlap}


def checked_windows(value: object) -> Windows | None:
    """What stands for windows: true, a size, size and overlap, or the fields. Raises RequestError."""
    if value is None or value is False:
        return None
    if value is True:
        return Windows()
    return checked_part(value, Windows, "windows", "a size, or size and overlap, in pixels")


def checked_upscaler(name: str, value: object, *, latent: bool = True) -> str:
    """The name of a way to enlarge pictures, or the name or path of a network. Raises RequestError."""
    known = (*LATENT_UPSCALERS, *PIXEL_UPSCALERS) if latent else PIXEL_UPSCALERS
    text = checked_name(name, value)
    if text is not None:
        plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
        if plain in known:
            return plain
        if plain not in LATENT_UPSCALERS:
            return text
    raise RequestError(f"{name} is {value!r}; it must be one of {', '.join(known)}, or a network's name or file", name)
