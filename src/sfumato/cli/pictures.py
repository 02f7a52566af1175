"""reconstruct, replay and info: what pictures go through, and what a picture tells."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.drawing import StartImage, check_picture
from sfumato.cli.options import Destination, Machine, Voice, Which, grouped
from sfumato.cli.output import Gallery, slug, write_document, write_line
from sfumato.cli.progress import note, progress

if TYPE_CHECKING:
    from sfumato.metadata import Description

app = typer.Typer()

Picture = Annotated[str, typer.Argument(metavar="PICTURE", help="A picture with metadata.", show_default=False)]


@app.command("reconstruct")
@grouped
def reconstruct(
    image: StartImage,
    which: Which,
    destination: Destination,
    machine: Machine,
    voice: Voice,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Write the original to the left of it, too.")
    ] = False,
) -> None:
    """Send a picture through the autoencoder and back.

    Tells how alike the two are, as PSNR and SSIM.
    """
    gallery = Gallery(destination.output, 1, overwrite=destination.overwrite, metadata=False, told=not voice.json)
    check_picture(image)
    from sfumato.images import grid
    from sfumato.operations import reconstruct as there_and_back

    with progress() as bar:
        bar("reconstructing")
        found = there_and_back(machine.engine().model(which.model, which.vae, prediction=which.prediction), image)
    shown = grid([found.original, found.picture], 2) if side_by_side else found.picture
    psnr = None if math.isinf(found.psnr) else round(found.psnr, 3)
    figures = {"psnr_db": psnr, "ssim": round(found.ssim, 5), "identical": psnr is None}
    gallery.add(shown, f"reconstruct-{slug(Path(image).stem)}", figures)
    if voice.json:
        write_document(gallery.written[0])
    else:
        note(f"PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.4f}")


@app.command("replay")
@grouped
def replay(
    picture: Picture,
    destination: Destination,
    machine: Machine,
    voice: Voice,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only compare: write nothing, and fail unless it is identical.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="NAME|PATH", help="Where the weights are now.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Its start picture; looked for beside it by default.")
    ] = None,
    mask: Annotated[str | None, typer.Option(metavar="MASK", help="Its mask; looked for beside it by default.")] = None,
) -> None:
    """Make a picture again and compare.

    All that is needed stands in the picture's metadata. Says identical, differs (how much),
    environment changed, missing weight or missing picture.
    """
    for source in (picture, image, mask):
        if source is not None:
            check_picture(source)
    keep = not destination.no_metadata
    gallery = Gallery(destination.output, 1, overwrite=destination.overwrite, metadata=keep, told=not voice.json)
    from sfumato.replay import replay as again

    with progress() as bar:
        bar("replaying")
        engine = machine.engine()
        verdict = again(picture, engine=engine, model=model, image=image, mask=mask, verify=verify)
    if verdict.picture is not None and not verify:
        gallery.add(verdict.picture, f"replay-{slug(Path(picture).stem)}", {})
    if voice.json:
        told: dict[str, Any] = {
            "outcome": verdict.outcome,
            "message": verdict.message,
            "changes": list(verdict.changes),
        }
        told |= {"largest": verdict.largest, "mean": verdict.mean, "lossy": verdict.lossy}
        write_document({**told, "path": gallery.written[0]["path"] if gallery.written else None})
    elif verify:
        write_line(verdict.message)
    else:
        note(verdict.message)
    if verdict.picture is None or (verify and verdict.outcome != "identical"):
        raise typer.Exit(1)


@app.command("info")
@grouped
def info(picture: Picture, voice: Voice) -> None:
    """Tell what a picture's metadata says.

    Whoever wrote it: sfumato, A1111, ComfyUI, InvokeAI, NovelAI and others.
    """
    check_picture(picture)
    from sfumato.metadata import describe

    found = describe(picture)
    if voice.json:
        write_document(_description_document(found))
        return
    if not found.tool:
        write_line("no metadata about how it was made")
        return
    write_line(f"made by: {found.tool}")
    write_line(f"prompt: {found.prompt}")
    if found.negative_prompt:
        write_line(f"negative prompt: {found.negative_prompt}")
    for name, value in found.settings.items():
        write_line(f"{name}: {value}")
    for name, value in (found.record or {}).get("environment", {}).items():
        write_line(f"made with {name}: {value}")


def _description_document(found: "Description") -> dict[str, Any]:
    document = {**asdict(found), "request": found.request.to_dict() if found.request else None}
    if found.tool == "sfumato":
        del document["texts"]  # the record says the same, as JSON
    return document
