"""evaluate: how much of what a model is asked for is in its pictures."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.options import Machine, Voice, grouped, number, whole
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import console, progress
from sfumato.cli.starting import MaskingOption
from sfumato.errors import OutputError
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.evaluate.report import Report

app = typer.Typer()

SUITES = (
    "one, two, unseen (these by default), natural, binding, counting, position, relation, size, background, style, "
    "img2img, inpainting"
)


@app.command("evaluate")
@grouped
def evaluate(
    machine: Machine,
    voice: Voice,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="The embedded one by default.", show_default=False)
    ] = None,
    suites: Annotated[
        list[str] | None, typer.Option("--suite", metavar="NAME", help=f"{SUITES}, or all; may be given several times.")
    ] = None,
    count: Annotated[int, typer.Option(parser=whole, metavar="N", help="Pictures of each suite.")] = 200,
    steps: Annotated[int | None, typer.Option(parser=whole, metavar="N", help="Sampling steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(parser=number, metavar="G", help="How strongly the words count.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(metavar="NAME", help="The sampler.")] = None,
    seed: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="Of the first picture of each suite; 0.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="Pictures that are computed together.")
    ] = None,
    masking: MaskingOption = None,
    reader: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another learned reader than the package's own.")
    ] = None,
    training_seed: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="The seed in the data section that it was trained by.")
    ] = None,
    training_scenes: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="Training scenes to look for copies in.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="A new folder; outputs/evaluation-TIME by default."),
    ] = None,
) -> None:
    """Measure how much of the words is drawn.

    Draws held-out prompts of the drawn world, and lets two readers say what is in the
    pictures. Writes report.json, table.md and sheets; the tables go to the terminal.
    """
    asked = {"steps": steps, "guidance": guidance, "sampler": sampler, "seed": seed, "batch": batch, "masking": masking}
    settings = Request.from_dict({"model": model, **asked})
    folder = output or Path("outputs") / f"evaluation-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists():
        raise OutputError(f"{folder} exists. Name a new folder; nothing is overwritten.")
    copied_from = (training_seed, training_scenes)
    report = _measured(machine, model, suites, count, settings=settings, reader=reader, copied_from=copied_from)
    _tell(report, folder, voice)


def _measured(
    machine: Machine,
    model: str | None,
    suites: list[str] | None,
    count: int,
    *,
    settings: Request,
    reader: Path | None,
    copied_from: tuple[int | None, int | None],
) -> "Report":
    """What is asked for is looked at before the model is loaded; `copied_from` is a seed and a number of scenes."""
    from sfumato.evaluate.measure import DEFAULT, chosen
    from sfumato.evaluate.measure import evaluate as measure
    from sfumato.evaluate.memorisation import training_of
    from sfumato.scenes.reader import load_reader

    names = chosen(suites or DEFAULT, count)
    training = training_of(*copied_from)
    learned = load_reader(reader) if reader else None
    with progress() as bar:
        bar("loading the model")
        loaded = machine.engine().model(model)
        return measure(
            loaded,
            names,
            count,
            settings=settings,
            reader=learned,
            training=training,
            progressed=lambda done, total: bar("drawing", done, total),
        )


def _tell(report: "Report", folder: Path, voice: Voice) -> None:
    """Write the report, show its tables to people, and say where it lies."""
    from sfumato.evaluate.table import WORDS, tables
    from sfumato.evaluate.writing import write

    paths = write(report, folder)
    for each in tables(report):
        console().print(each)
    console().print(WORDS)
    if voice.json:
        write_document({**json.loads(report.to_json()), "paths": [str(path) for path in paths]})
        return
    for path in paths:
        write_line(path)
