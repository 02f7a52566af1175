"""reconstruct, encode, replay and info: what pictures and prompts go through, and what a picture tells."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.drawing import StartImage, check_picture
from sfumato.cli.options import Destination, Machine, Voice, Which, grouped
from sfumato.cli.output import Gallery, slug, write_document, write_line
from sfumato.cli.progress import note, progress
from sfumato.errors import OutputError

if TYPE_CHECKING:
    from sfumato.metadata import Description
    from sfumato.text.prompt import PromptReport

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


@app.command("encode")
@grouped
def encode(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Words.", show_default=False)],
    which: Which,
    machine: Machine,
    voice: Voice,
    dialect: Annotated[
        str, typer.Option(metavar="NAME", help="How weights in prompts are written: a1111, comfy, compel or plain.")
    ] = "a1111",
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Write what the text encoders make of it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Show a prompt's tokens, weights and chunks.

    Also says what was cut, where a model takes no more.
    """
    if save is not None and save.suffix != ".safetensors":
        raise OutputError(f"--save {save}: features are written as .safetensors; name the file so.")
    if save is not None and save.exists() and not overwrite:
        raise OutputError(f"{save} exists. Choose another name, or replace it with --overwrite.")
    from sfumato.operations import report_prompt
    from sfumato.request import checked_dialect
    from sfumato.weights.features import save_features

    how = checked_dialect(dialect)
    with progress() as bar:
        bar("loading the model")
        model = machine.engine().model(which.model, which.vae, prediction=which.prediction)
        report = report_prompt(model, prompt, how)
        if save is not None:
            save_features(model.text.encode(prompt, dialect=how), save, overwrite=overwrite)
    if report.cut:
        note(f"cut, because the model takes no more: {report.cut!r}, {report.cut_tokens} tokens")
    if voice.json:
        write_document(_report_document(report, save))
        return
    write_line(f"{len(report.ids)} tokens in {len(report.chunks)} chunks of at most 75")
    for place, chunk in enumerate(report.chunks):
        mine = [i for i, chunk_of in enumerate(report.places) if chunk_of == place]
        said = " ".join(_token(report, i) for i in mine)
        write_line(f"chunk {place + 1}: {said or '(nothing)'}")
        write_line(f"  ids: {' '.join(str(number) for number in chunk.ids)}")
    if save is not None:
        write_line(save)


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


def _token(report: "PromptReport", index: int) -> str:
    spelling = report.tokens[index].removesuffix("</w>")
    weight = report.weights[index]
    return spelling if weight == 1 else f"{spelling}({weight:.4g})"


def _report_document(report: "PromptReport", saved: Path | None) -> dict[str, Any]:
    tokens = zip(report.tokens, report.ids, report.weights, report.places, strict=True)
    return {
        "prompt": report.prompt,
        "tokens": [{"token": t, "id": i, "weight": w, "chunk": c} for t, i, w, c in tokens],
        "chunks": [list(chunk.ids) for chunk in report.chunks],
        "cut": report.cut,
        "cut_tokens": report.cut_tokens,
        "path": None if saved is None else str(saved),
    }


def _description_document(found: "Description") -> dict[str, Any]:
    document = {**asdict(found), "request": found.request.to_dict() if found.request else None}
    if found.tool == "sfumato":
        del document["texts"]  # the record says the same, as JSON
    return document
