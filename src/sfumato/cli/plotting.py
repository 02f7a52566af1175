"""grid: an X/Y/Z plot of one request over the values of its fields."""

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.drawing import check_picture, fields_of, request_of, started
from sfumato.cli.options import Destination, Drawing, Voice, Which, grouped
from sfumato.cli.output import Gallery, slug, write_document
from sfumato.cli.progress import progress
from sfumato.cli.remote import Painter
from sfumato.cli.starting import Enlarging, Fitting, Masking, Share, StrengthRule, Varying
from sfumato.plots.axes import Axis, Cell, cells, parse_axis
from sfumato.request import SEED_BITS

if TYPE_CHECKING:
    from PIL.Image import Image

    from sfumato.client import Client
    from sfumato.engine import Engine

app = typer.Typer()

AXIS_HELP = "FIELD=VALUES: steps=10,20,30, seed=1-9 (+2), guidance=2-8 [4], sampler=euler,ddim, prompt=house,tree."
AxisText = Annotated[list[str] | None, typer.Option(metavar="FIELD=VALUES", help=AXIS_HELP, show_default=False)]

Made = dict[tuple[int, int, int], "Image"]


@app.command("grid")
@grouped
def grid(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Words.", show_default=False)],
    which: Which,
    drawing: Drawing,
    varying: Varying,
    enlarging: Enlarging,
    fitting: Fitting,
    masking: Masking,
    destination: Destination,
    machine: Painter,
    voice: Voice,
    x: AxisText = None,
    y: AxisText = None,
    z: AxisText = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="The picture to start from.")] = None,
    mask: Annotated[str | None, typer.Option(metavar="MASK", help="White is repainted.")] = None,
    strength: Share = None,
    strength_rule: StrengthRule = None,
) -> None:
    """Draw one prompt over the values of up to three fields.

    Each cell is a picture of its own; the last is the sheet of them all, with labels. With -o sheet.png that is the
    sheet, and the cells are sheet-1.png, sheet-2.png, ... All cells have one seed unless an axis gives seeds. What was
    drawn stays when it is interrupted, and so does a sheet of it.
    """
    begins = started(image, strength, strength_rule) | {"mask": mask}
    begins |= fields_of(varying, enlarging, fitting, masking)
    request = request_of([prompt], which, drawing, begins)
    if request.seed is None:
        request = replace(request, seed=secrets.randbits(SEED_BITS))
    axes = tuple(map(_axis, ("--x", "--y", "--z"), (x, y, z)))
    if not any(axes):
        raise typer.BadParameter("a grid needs an axis: --x, --y or --z, such as --x steps=10,20,30.")
    if destination.grid is not None:
        raise typer.BadParameter("--grid is not for this verb, which always writes a sheet; leave it out.")
    found = cells(request, *axes)
    for source in (image, mask):
        if source is not None:
            check_picture(source)
    gallery = Gallery(
        destination.output,
        len(found),
        overwrite=destination.overwrite,
        metadata=not destination.no_metadata,
        told=not voice.json,
        names_sheet=True,
    )
    made: Made = {}
    document: dict[str, Any] = {"pictures": gallery.written, "grid": None, "finished": False}
    try:
        with machine.painter() as painter:
            _draw(painter, found, axes, gallery, made)
        document["finished"] = True
    finally:
        if made:
            document["grid"] = _sheet(gallery, made, axes)
        if voice.json and made:
            write_document(document)


def _axis(option: str, texts: list[str] | None) -> Axis | None:
    """The axis that an option gives. Raises typer.BadParameter if it is given twice: one would be lost."""
    if texts and len(texts) > 1:
        raise typer.BadParameter(
            f"{option} is given twice, as {' and '.join(texts)}; each of --x, --y and --z is one axis."
        )
    return parse_axis(texts[0]) if texts else None


def _draw(
    painter: "Engine | Client", found: list[Cell], axes: tuple[Axis | None, ...], gallery: Gallery, made: Made
) -> None:
    """Draw the cells, each written when it is finished."""
    from sfumato.events import Finished, Loading, Progress

    with progress() as bar:
        for number, cell in enumerate(found):
            place = (cell.x, cell.y, cell.z)
            told = {axis.field: axis.texts[index] for axis, index in zip(axes, place, strict=True) if axis is not None}
            for event in painter.run(cell.request, metadata=gallery.metadata):
                if isinstance(event, Loading):
                    bar(f"loading {event.model}")
                elif isinstance(event, Progress):
                    bar(f"cell {number + 1} of {len(found)}", event.step, event.steps)
                elif isinstance(event, Finished):
                    name = f"{event.seed}-" + slug("-".join(f"{field}-{text}" for field, text in told.items()), 80)
                    made[place] = event.picture  # before its path is told: from then on it must be on the sheet
                    gallery.add(event.picture, name, {"seed": event.seed, "cell": list(place), "values": told})


def _sheet(gallery: Gallery, made: Made, axes: tuple[Axis | None, ...]) -> str:
    """Write the labelled sheet, with A1111's text about the first picture and the axes."""
    from sfumato.plots.sheet import plot_sheet

    whole = plot_sheet(made, *axes)
    first = next(iter(made.values()))
    if "parameters" in first.info and gallery.metadata:
        from sfumato.metadata import Infotext, format_infotext, parse_infotext

        told = parse_infotext(first.info["parameters"])
        script = {"Script": "X/Y/Z plot"}
        for letter, axis in zip("XYZ", axes, strict=True):
            if axis is not None:
                script |= {f"{letter} Type": axis.field, f"{letter} Values": ",".join(axis.texts)}
        parameters = {**told.parameters, **script}
        whole.info["parameters"] = format_infotext(Infotext(told.prompt, told.negative_prompt, parameters))
    return str(gallery.add_sheet(whole))
