"""train: the parts of a model, from a TOML file."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.options import Voice, grouped
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import progress


class Part(StrEnum):
    """What can be trained."""

    autoencoder = "autoencoder"
    text = "text"
    unet = "unet"
    lora = "lora"
    inversion = "inversion"
    inpainting = "inpainting"
    reader = "reader"


app = typer.Typer()


@app.command("train")
@grouped
def train(
    part: Annotated[
        Part,
        typer.Argument(
            metavar="PART",
            help="autoencoder, text, unet, lora, inversion, inpainting or reader.",
            show_default=False,
        ),
    ],
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run as TOML.", show_default=False)],
    voice: Voice,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; may be given several times."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in its output folder.")] = False,
) -> None:
    """Train a part of a model, or something that changes one.

    Its autoencoder, text encoder or UNet; a LoRA, the embedding of a new word or an inpainting model from a model that
    there is; or the reader that scores pictures of the drawn world.
    Ctrl-C saves and stops; --resume goes on as if nothing had happened.
    """
    from sfumato.train.config import read_config

    overrides = settings or []
    run = read_config(config, overrides).run
    from sfumato.train import run_training

    with progress() as bar:

        def report(figures: dict[str, float]) -> None:
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if name != "step")
            bar(f"{part}: {told}", figures.get("step", 0), run.steps)

        bar(f"{part}: preparing", 0, run.steps)
        steps = run_training(part.value, config, overrides, resume=resume, report=report)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, one tells
    if voice.json and first:
        write_document({"output": run.output, "steps": steps, "of": run.steps, "finished": steps >= run.steps})
    elif first:
        write_line(run.output)
    if steps < run.steps:
        raise KeyboardInterrupt
