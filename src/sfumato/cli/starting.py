"""Options about what pictures begin from: masks, fitting, variations."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sfumato.cli.options import NUMBER, number, parse_size, whole

Share = Annotated[
    float | None,
    typer.Option(
        parser=number, metavar="F", help="0 to 1: how much of the way back to noise it goes.", show_default=False
    ),
]
StrengthRule = Annotated[
    str | None,
    typer.Option(
        metavar="RULE", help="How many steps that is: share (diffusers), a1111 or whole (ComfyUI).", show_default=False
    ),
]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a start picture takes another size."""

    resize_mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="crop (by default), stretch, or fill: how IMAGE takes another size."),
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of the request."""
        return {"resize_mode": self.resize_mode}


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What is done with a mask."""

    mask_blur: Annotated[
        float | None, typer.Option(parser=number, metavar="PIXELS", help="A soft edge, inside of the mask.")
    ] = None
    mask_invert: Annotated[bool, typer.Option("--mask-invert", help="Black is repainted instead of white.")] = False
    masked_only: Annotated[
        bool,
        typer.Option("--masked-only", help="Work on what is around the mask alone, at --size, and put it back."),
    ] = False
    padding: Annotated[
        int | None, typer.Option(parser=whole, metavar="PIXELS", help="Around the mask with --masked-only; 32.")
    ] = None
    masked_content: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="What is repainted: original, fill (colours around), noise, nothing."),
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of the request."""
        return {
            "mask_blur": self.mask_blur,
            "mask_invert": self.mask_invert,
            "masked_only": self.masked_only,
            "padding": self.padding,
            "masked_content": self.masked_content,
        }


@dataclass(frozen=True, kw_only=True)
class Varying:
    """How the start noise leans towards another one."""

    variation: Annotated[
        str | None,
        typer.Option(metavar="F[:SEED]", help="0 to 1: how much of another seed's noise, a random one's by default."),
    ] = None
    seed_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Keep what the seed gives at this size in the middle.")
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of the request. Raises typer.BadParameter."""
        seed_size = parse_size(self.seed_size, "--seed-size")
        return {"variation": parse_variation(self.variation), "seed_size": seed_size}


def parse_variation(text: str | None) -> tuple[float | int, ...] | None:
    """Strength and seed from `0.2:77`, or the strength alone. Raises typer.BadParameter."""
    if text is None:
        return None
    strength, colon, seed = text.partition(":")
    if not NUMBER.fullmatch(strength) or (colon and not seed.isdecimal()):
        raise typer.BadParameter(f"--variation is {text!r}; it must be a strength, or strength:seed, such as 0.2:77.")
    return (float(strength), int(seed)) if colon else (float(strength),)
