"""Options for how pictures are guided and how the networks run; all are off unless they are given."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sfumato.cli.options import NUMBER, number, parse_lora, parse_size

PART = "[on|VALUE|KEY=VALUE,...]"

PARTS = (
    "--freeu",
    "--perturbed-attention",
    "--pag",
    "--self-attention-guidance",
    "--sag",
    "--apg",
    "--dynamic-thresholding",
    "--soft-inpainting",
)
"""Options that are on when nothing follows them."""


def part_text(text: str) -> str:
    """A text that may stand for a part, as it is. Raises typer.BadParameter for what is rather the next word."""
    if text == "on" or NUMBER.fullmatch(text) or "=" in text:
        return text
    raise typer.BadParameter(
        f"{text!r} is neither on, nor a number, nor like key=value,key=value. Before other words on must be written; "
        "alone, the option is on when another follows or nothing."
    )


@dataclass(frozen=True, kw_only=True)
class Guides:
    """What changes how a picture is guided; None is off. The keys are the fields of the request's part."""

    guidance_interval: Annotated[
        str | None,
        typer.Option(metavar="FROM:TO", help="Guide only between these parts of the noise schedule, 0 to 1."),
    ] = None
    tiling: Annotated[
        str | None, typer.Option(metavar="x|y|both", help="A picture that repeats without a seam in these directions.")
    ] = None
    freeu: Annotated[
        str | None, typer.Option(parser=part_text, metavar=PART, help="FreeU: b1, b2, s1, s2; on = 1.3, 1.4, 0.9, 0.2.")
    ] = None
    perturbed_attention: Annotated[
        str | None,
        typer.Option(
            "--perturbed-attention",
            "--pag",
            parser=part_text,
            metavar=PART,
            help="PAG: scale (3), layers (mid; A+B), adaptive (0).",
        ),
    ] = None
    self_attention_guidance: Annotated[
        str | None,
        typer.Option(
            "--self-attention-guidance", "--sag", parser=part_text, metavar=PART, help="SAG: scale (0.75), blur (1)."
        ),
    ] = None
    apg: Annotated[
        str | None,
        typer.Option(
            parser=part_text,
            metavar=PART,
            help="Adaptive projected guidance: eta (0), threshold (0 = none), momentum (0).",
        ),
    ] = None
    dynamic_thresholding: Annotated[
        str | None,
        typer.Option(
            parser=part_text,
            metavar=PART,
            help="mimic_scale (7), percentile (1), separate_channels, start, measure, phi (1).",
        ),
    ] = None

    refiner: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH[:AT]", help="A model that draws on from this part of the timesteps, 0.8."),
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of a request that these options are. Raises typer.BadParameter for what cannot be read."""
        parts = ("freeu", "perturbed_attention", "self_attention_guidance", "apg", "dynamic_thresholding")
        return {
            "guidance_interval": parse_interval(self.guidance_interval),
            "tiling": self.tiling,
            "refiner": None if self.refiner is None else parse_refiner(self.refiner),
            **{name: parse_part(name, getattr(self, name)) for name in parts},
        }


@dataclass(frozen=True, kw_only=True)
class Grey:
    """What grey in a mask is, where it is not a share of a mixture of pixels."""

    differential: Annotated[
        bool, typer.Option("--differential", help="Grey in the mask is a strength: Differential Diffusion.")
    ] = False
    soft_inpainting: Annotated[
        str | None,
        typer.Option(
            parser=part_text,
            metavar=PART,
            help="Grey is kept at high noise: schedule_bias (1), preservation_strength (0.5), "
            "transition_contrast_boost (4); with difference_threshold pixels by how much they changed: "
            "mask_influence (0), difference_contrast (2).",
        ),
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of a request that these options are. Raises typer.BadParameter for what cannot be read."""
        return {
            "differential": self.differential,
            "soft_inpainting": parse_part("soft_inpainting", self.soft_inpainting),
        }


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What SDXL and its refiner are told about the training picture that the wanted one should be like."""

    original_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="SDXL: the size that the picture is said to have had.")
    ] = None
    crop: Annotated[
        str | None, typer.Option(metavar="LEFT,TOP", help="SDXL: how far it is said to have been cropped.")
    ] = None
    target_size: Annotated[str | None, typer.Option(metavar="WxH", help="SDXL: the size that it is said to have.")] = (
        None
    )
    negative_original_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="SDXL: the same of what it should not be.")
    ] = None
    negative_crop: Annotated[str | None, typer.Option(metavar="LEFT,TOP", help="SDXL: the same.")] = None
    negative_target_size: Annotated[str | None, typer.Option(metavar="WxH", help="SDXL: the same.")] = None
    aesthetic_score: Annotated[
        float | None, typer.Option(parser=number, metavar="S", help="SDXL's refiner: 0 to 10; 6 by default.")
    ] = None
    negative_aesthetic_score: Annotated[
        float | None, typer.Option(parser=number, metavar="S", help="SDXL's refiner: of what it should not be; 2.5.")
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of a request that these options are. Raises typer.BadParameter for what cannot be read."""
        sizes = ("original_size", "target_size", "negative_original_size", "negative_target_size")
        return {
            **{name: parse_size(getattr(self, name), f"--{name.replace('_', '-')}") for name in sizes},
            "crop": parse_corner("crop", self.crop),
            "negative_crop": parse_corner("negative-crop", self.negative_crop),
            "aesthetic_score": self.aesthetic_score,
            "negative_aesthetic_score": self.negative_aesthetic_score,
        }


def parse_refiner(text: str) -> dict[str, Any]:
    """Name and switch from `refiner.safetensors:0.8`, with colons read as those of a LoRA."""
    name, *at = parse_lora(text)
    if len(at) > 1:
        raise typer.BadParameter(f"--refiner is {text!r}; it must be a name or a path, and perhaps :0.8.")
    return {"model": name, **({"at": at[0]} if at else {})}


def parse_corner(option: str, text: str | None) -> tuple[int, int] | None:
    """Pixels from the left and from above, from `16,0`."""
    if text is None:
        return None
    left, _, top = text.partition(",")
    if not left.strip().isdecimal() or not top.strip().isdecimal():
        raise typer.BadParameter(f"--{option} is {text!r}; it must be pixels from the left and from above, as in 16,0.")
    return int(left), int(top)


def parse_interval(text: str | None) -> tuple[float, float] | None:
    """Two numbers from `0.1:0.8`."""
    if text is None:
        return None
    first, _, last = text.partition(":")
    if not NUMBER.fullmatch(first) or not NUMBER.fullmatch(last):
        raise typer.BadParameter(f"--guidance-interval is {text!r}; it must be two numbers, such as 0.1:0.8.")
    return float(first), float(last)


def parse_part(name: str, text: str | None) -> Any:
    """A part of a request as the request takes it: `on` is its defaults, one value its first field, else an object.

    In `scale=2,layers=mid+up_blocks.0` a + lies between the items of a list.
    """
    if text is None or text == "on":
        return None if text is None else True
    if "=" not in text:
        return _value(text)
    fields: dict[str, Any] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or key.strip() in fields:
            option = name.replace("_", "-")
            raise typer.BadParameter(f"--{option} is {text!r}; it must be on, a value, or like key=value,key=value.")
        fields[key.strip()] = _value(value.strip())
    return fields


def _value(text: str) -> Any:
    if NUMBER.fullmatch(text):
        return float(text)
    if text in ("true", "false"):
        return text == "true"
    return text.split("+") if "+" in text else text
