"""demo: pictures of every kind with the embedded model, to see that it works."""

import time
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.drawing import paint
from sfumato.cli.options import Machine, Voice, between, grouped
from sfumato.cli.output import Gallery, write_document, write_line
from sfumato.cli.progress import note
from sfumato.errors import OutputError
from sfumato.request import Request

app = typer.Typer()

PROMPTS = (
    "a painting of a red house at the bottom on green grass",
    "a cartoon of a yellow star at the top at night",
    "a blue boat at the bottom right on the sea",
    "a paper cut of a large white flower in the desert",
)
CHANGED = "a painting of a purple house at the bottom in the snow"
REPAINTED = "a painting of a yellow moon at the top on green grass"


@app.command("demo")
@grouped
def demo(
    machine: Machine,
    voice: Voice,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="A new folder; outputs/demo-TIME.")
    ] = None,
    seed: Annotated[int, typer.Option(parser=between(0, 2**63), metavar="N", help="Of the first picture.")] = 1,
) -> None:
    """Draw a first set of pictures.

    From words, from a picture and inside a mask, with the embedded model; and a grid of them all.
    """
    started = time.monotonic()
    folder = output or Path("outputs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists():
        raise OutputError(f"{folder} exists. Name a new folder; nothing is overwritten.")
    from PIL import Image, ImageDraw

    from sfumato.images import grid

    engine = machine.engine()

    def make(name: str, request: Request) -> list[Image.Image]:
        gallery = Gallery(str(folder / f"{name}.png"), request.total, told=not voice.json)
        pictures = paint(engine, request, gallery, {})
        made.extend(gallery.written)
        return pictures

    made: list[dict[str, object]] = []
    drawn = make("txt2img", Request(prompt=PROMPTS, seed=seed))
    first = str(folder / "txt2img.png")
    changed = make("img2img", Request(prompt=CHANGED, image=first, strength=0.8, seed=seed))
    width, height = drawn[0].size
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rectangle((width // 8, 0, width * 7 // 8, height * 2 // 5), fill=255)
    mask.save(folder / "mask.png")
    if not voice.json:
        write_line(folder / "mask.png")
    repainted = make("inpaint", Request(prompt=REPAINTED, image=first, mask=str(folder / "mask.png"), seed=seed + 4))
    whole = grid([*drawn, *changed, *repainted], 3)
    Gallery(str(folder / "grid.png"), 1, metadata=False, told=not voice.json).add(whole, "grid", {})
    seconds = time.monotonic() - started
    if voice.json:
        files = {"mask": str(folder / "mask.png"), "grid": str(folder / "grid.png")}
        write_document({"pictures": made, **files, "seconds": round(seconds, 3)})
    note(f"{len(made)} pictures in {seconds:.1f} s. Now try: sfumato txt2img 'a purple flower in the snow'")
