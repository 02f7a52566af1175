"""Options about what pictures begin from: masks, fitting, new sides, variations, a second pass."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from sfumato.cli.options import NUMBER, SIZE, number, parse_size, whole

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

MaskingOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOW", help="network: the UNet sees the mask, where one can (by default there); blend: it does not."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a start picture takes another size."""

    resize_mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="crop (by default), stretch, fill, or latent: how IMAGE takes another size."),
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
    masking: MaskingOption = None
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
            "masking": self.masking,
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


def enlargement(text: str) -> str:
    """A text that says how large a second pass is, as it is. Raises typer.BadParameter for any other."""
    if NUMBER.fullmatch(text) or SIZE.fullmatch(text.strip()):
        return text
    raise typer.BadParameter(f"{text!r} is neither so many times as large, such as 2, nor a size, such as 768x1024.")


@dataclass(frozen=True, kw_only=True)
class Enlarging:
    """A second pass over the picture, enlarged."""

    hires: Annotated[
        str | None,
        typer.Option(
            parser=enlargement, metavar="F|WxH", help="Draw small, enlarge so many times or to this size, and draw on."
        ),
    ] = None
    hires_upscaler: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="latent (by default), latent_bicubic, lanczos, a network.")
    ] = None
    hires_strength: Annotated[
        float | None, typer.Option(parser=number, metavar="F", help="0 to 1: how much is drawn anew; 0.7.")
    ] = None
    hires_strength_rule: Annotated[
        str | None, typer.Option(metavar="RULE", help="share, a1111, or whole: all the steps, as A1111's hires fix.")
    ] = None
    hires_steps: Annotated[int | None, typer.Option(parser=whole, metavar="N", help="Its steps.")] = None
    hires_sampler: Annotated[str | None, typer.Option(metavar="NAME", help="Its sampler.")] = None
    hires_spacing: Annotated[str | None, typer.Option(metavar="NAME", help="Its noise levels.")] = None
    hires_guidance: Annotated[float | None, typer.Option(parser=number, metavar="G", help="Its guidance.")] = None
    hires_prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="Its prompt.")] = None
    hires_negative: Annotated[str | None, typer.Option(metavar="TEXT", help="Its negative prompt.")] = None

    def fields(self) -> dict[str, Any]:
        """The fields of the request. Raises typer.BadParameter."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "hires"}
        given = {name.removeprefix("hires_"): value for name, value in given.items() if value is not None}
        if self.hires is None:
            for name in given:
                raise typer.BadParameter(f"--hires-{name.replace('_', '-')} needs --hires, such as --hires 2.")
            return {}
        if NUMBER.fullmatch(self.hires):
            given["scale"] = float(self.hires)
        else:
            given["size"] = parse_size(self.hires, "--hires")
        if "negative" in given:
            given["negative_prompt"] = given.pop("negative")
        return {"hires": given}


@dataclass(frozen=True, kw_only=True)
class Growing:
    """What is added at the sides of a picture."""

    left: Annotated[int, typer.Option(parser=whole, metavar="PIXELS", help="New at the left.")] = 0
    top: Annotated[int, typer.Option(parser=whole, metavar="PIXELS", help="New at the top.")] = 0
    right: Annotated[int, typer.Option(parser=whole, metavar="PIXELS", help="New at the right.")] = 0
    bottom: Annotated[int, typer.Option(parser=whole, metavar="PIXELS", help="New at the bottom.")] = 0
    feather: Annotated[
        int, typer.Option(parser=whole, metavar="PIXELS", help="Of the old picture, in which the new part fades out.")
    ] = 32
    fill: Annotated[
        str, typer.Option(metavar="WHAT", help="What is in the new part at first: edge, around, mean or noise.")
    ] = "edge"
    masked_only: Annotated[
        bool, typer.Option("--masked-only", help="Work on what is around the new part alone, at --size.")
    ] = False
    padding: Annotated[
        int | None, typer.Option(parser=whole, metavar="PIXELS", help="Around it with --masked-only; 32.")
    ] = None
    masking: MaskingOption = None

    def fields(self) -> dict[str, Any]:
        """The fields of the request."""
        sides = {name: getattr(self, name) for name in ("left", "top", "right", "bottom", "feather", "fill")}
        return {
            "outpaint": sides,
            "masked_only": self.masked_only,
            "padding": self.padding,
            "masking": self.masking,
        }
