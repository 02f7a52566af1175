"""upscale: a picture made larger, by a filter, a network, or the model drawing on in overlapping parts."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.drawing import StartImage, check_picture, draw, request_of
from sfumato.cli.options import Destination, Drawing, Voice, Which, grouped, number, parse_size, whole
from sfumato.cli.output import Gallery, slug, write_document
from sfumato.cli.progress import progress
from sfumato.cli.remote import Painter
from sfumato.cli.starting import Varying
from sfumato.request import Hires, checked_upscaler

app = typer.Typer()

STRENGTH = 0.3  # of what the model draws anew: it adds detail and leaves the picture what it is


@dataclass(frozen=True, kw_only=True)
class Redrawing:
    """How the model draws on."""

    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Words, with which the model draws the larger picture on.")
    ] = None
    strength: Annotated[
        float | None,
        typer.Option(parser=number, metavar="F", help="0 to 1: how much is drawn anew, with --prompt; 0.3."),
    ] = None
    window: Annotated[
        int | None,
        typer.Option(parser=whole, metavar="PIXELS", help="The side of the parts that it sees; the model's own size."),
    ] = None
    overlap: Annotated[
        int | None, typer.Option(parser=whole, metavar="PIXELS", help="Of neighbouring parts; a quarter of a side.")
    ] = None


@app.command("upscale")
@grouped
def upscale(
    image: StartImage,
    redrawing: Redrawing,
    which: Which,
    drawing: Drawing,
    varying: Varying,
    destination: Destination,
    machine: Painter,
    voice: Voice,
    scale: Annotated[
        float | None, typer.Option(parser=number, metavar="F", help="1 to 8 times as wide and high; 2 by default.")
    ] = None,
    upscaler: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="nearest, bilinear, bicubic, lanczos, or an ESRGAN-type network.")
    ] = "lanczos",
) -> None:
    """Make a picture larger.

    By a filter or a network; with --prompt the model draws the larger picture on, in overlapping parts that it blends
    at every step. Without --size or --scale it becomes twice as wide and high.
    """
    check_picture(image)
    size = parse_size(drawing.size)
    hires = Hires(scale=scale, size=size, upscaler=checked_upscaler("upscaler", upscaler, latent=False))
    if redrawing.prompt is None:
        _refuse_unused(redrawing, which, drawing, varying)
        _enlarge(image, hires, destination, machine, voice)
        return
    begins: dict[str, Any] = {"image": image, "strength": 0.0, "width": None, "height": None, **varying.fields()}
    begins["hires"] = {**hires.to_dict(), "strength": STRENGTH if redrawing.strength is None else redrawing.strength}
    begins["windows"] = {"size": redrawing.window, "overlap": redrawing.overlap}
    draw(request_of([redrawing.prompt], which, drawing, begins), destination, machine, voice)


def _refuse_unused(*groups: Redrawing | Which | Drawing | Varying) -> None:
    """Raise typer.BadParameter for options of the model where no --prompt asks it to draw on."""
    given = [
        f"--{each.name.replace('_', '-')}"
        for group in groups
        for each in fields(group)
        if each.name != "size" and getattr(group, each.name) != each.default
    ]
    if given:
        raise typer.BadParameter(
            f"{' and '.join(given)} without --prompt: the model draws the larger picture on only with words. "
            "Give --prompt, or leave the others out."
        )


def _enlarge(image: str, hires: Hires, destination: Destination, machine: Painter, voice: Voice) -> None:
    """Make a picture larger without a model."""
    gallery = Gallery(destination.output, 1, overwrite=destination.overwrite, told=not voice.json)
    from sfumato.devices import choose_device
    from sfumato.upscaling import enlarged_picture

    with progress() as bar:
        bar("enlarging")
        picture = enlarged_picture(image, hires, choose_device(machine.device))
    about = {"width": picture.width, "height": picture.height, "upscaler": hires.upscaler}
    gallery.add(picture, f"upscale-{slug(Path(image).stem)}", about)
    if voice.json:
        write_document(gallery.written[0])
