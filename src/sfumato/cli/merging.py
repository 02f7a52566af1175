"""models merge and verify: tensor by tensor."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.options import Voice, grouped, number
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import note, progress
from sfumato.weights.writing import refuse_existing

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="MODEL", show_default=False)]


@app.command("merge")
@grouped
def merge(
    first: Name,
    second: Name,
    voice: Voice,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUTPUT", help="FILE.safetensors or a folder.", show_default=False)
    ],
    weight: Annotated[float, typer.Option(parser=number, metavar="W", help="How much of the second.")] = 0.5,
    minus: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Add W x (second - this one) to the first, in place of their mean."),
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BLOCK=W",
            help="Another weight for a block: IN00, M00, OUT11, vae, text_encoder, unet.mid_block. Repeatable.",
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="float32, float16 or bfloat16; the first's.")
    ] = None,
    prediction: Annotated[
        str | None, typer.Option(metavar="NAME", help="epsilon, v or sample, where the files do not say it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Mix two models, or add the difference of two to a third: FIRST + W (SECOND - MINUS)."""
    blocks = dict(_block(text) for text in block or ())
    refuse_existing(output, overwrite=overwrite)
    from sfumato.devices import named_dtype
    from sfumato.weights.merge import merge as mix

    with progress() as bar:
        written = mix(
            first,
            second,
            output,
            third=minus,
            weight=weight,
            blocks=blocks,
            prediction=prediction,
            dtype=None if dtype is None else named_dtype(dtype),
            overwrite=overwrite,
            told=lambda done, total: bar("merging", done, total),
        )
    if voice.json:
        write_document({"path": str(written), "weight": weight, "blocks": blocks})
    else:
        write_line(written)


def _block(text: str) -> tuple[str, float]:
    """A block and its weight from `IN04=0.25`. Raises typer.BadParameter."""
    name, sign, value = text.rpartition("=")
    if not sign or not name:
        raise typer.BadParameter(f"--block is {text!r}; it must be a block and its weight, such as IN04=0.25.")
    return name, number(value)


@app.command("verify")
@grouped
def verify(
    voice: Voice,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL|FILE]", help="The embedded one by default.", show_default=False)
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="The hash that it should have, or its beginning.")
    ] = None,
) -> None:
    """Read every weight of a model or of another file, check that all are there and finite, and print their sha256.

    They are compared with the hashes that the cache, the metadata or you tell.
    """
    from sfumato.weights.verify import verify as look

    with progress() as bar:
        found = look(model, expected=sha256, told=lambda done, total: bar("reading every weight", done, total))
    if voice.json:
        write_document({"model": model, **asdict(found)})
        return
    note(f"{found.tensors:,} tensors, {found.numbers:,} numbers, all finite")
    for line in found.compared:
        note(f"compared: {line}")
    for name, digest in found.sha256.items():
        write_line(f"{digest}  {name}")
