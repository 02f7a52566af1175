"""encode: what becomes of a prompt, from what is drawn in it to the tokens of each step."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.options import Machine, Voice, Which, between, grouped
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import note, progress
from sfumato.errors import OutputFormatError
from sfumato.request import Request, checked_dialect
from sfumato.weights.writing import refuse_existing

if TYPE_CHECKING:
    from sfumato.text.prompt import PromptReport
    from sfumato.text.telling import Asked

app = typer.Typer()


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
    steps: Annotated[
        int, typer.Option(parser=between(1, 1000), metavar="N", help="For prompts that change from step to step.")
    ] = 20,
    seed: Annotated[
        int, typer.Option(parser=between(0, 2**64 - 1), metavar="N", help="For prompts in which something is drawn.")
    ] = 0,
    style: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A style of styles.csv. Repeatable.")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Write what the text encoders make of it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Show a prompt's tokens, weights and chunks.

    Also says which LoRAs it names, what was drawn, when it changes, and what was cut where a model takes no more.
    With --save the path of the file goes to stdout, and what is shown to stderr.
    """
    if save is not None and save.suffix != ".safetensors":
        raise OutputFormatError(f"--save {save}: features are written as .safetensors; name the file so.")
    if save is not None:
        refuse_existing(save, overwrite=overwrite)
    request = Request(prompt=prompt, dialect=checked_dialect(dialect), seed=seed, styles=style or ())
    from sfumato.text.telling import asked
    from sfumato.text.words import words
    from sfumato.weights.features import save_features
    from sfumato.wording import filled_in

    filled = filled_in(request)
    said = words(request, 0, filled)
    parts = asked(said.prompt, steps, request.dialect)
    with progress() as bar:
        bar("loading the model")
        model = machine.engine().model(which.model, which.vae, prediction=which.prediction)
        reports = [[model.text.tokens(each.text, dialect=request.dialect) for each in part.stretches] for part in parts]
        if save is not None:
            save_features(model.text.encode(reports[0][0].prompt, dialect=request.dialect), save, overwrite=overwrite)
    for report in (report for part in reports for report in part):
        if report.cut:
            note(f"cut, because the model takes no more: {report.cut!r}, {report.cut_tokens} tokens")
    if voice.json:
        document = {**_document(reports[0][0]), "prompt": prompt, "path": None if save is None else str(save)}
        document |= {"drawn": filled[0].prompt if filled else None, "loras": [each.to_dict() for each in said.loras]}
        write_document({**document, "parts": [_part(*each) for each in zip(parts, reports, strict=True)]})
        return
    say = write_line if save is None else note  # with --save, what was made is the file
    for line in [*(f"LoRA: {lora}" for lora in said.loras), *([f"drawn: {filled[0].prompt}"] if filled else [])]:
        say(line)
    for part, of_part in zip(parts, reports, strict=True):
        _tell(say, part, of_part, alone=len(parts) == 1)
    if save is not None:
        write_line(save)


def _tell(say: Callable[[str], None], part: "Asked", reports: "list[PromptReport]", *, alone: bool) -> None:
    """The tokens of each stretch of a part, with a heading where there are several."""
    first = 1
    for stretch, report in zip(part.stretches, reports, strict=True):
        weight = "" if alone else f"weight {part.weight:g}, "
        if not alone or len(reports) > 1:
            say(f"{weight}steps {first} to {stretch.until}: {stretch.text.strip()}")
        first = stretch.until + 1
        say(f"{_counted(len(report.ids), 'token')} in {_counted(len(report.chunks), 'chunk')} of at most 75")
        for place, chunk in enumerate(report.chunks):
            mine = [i for i, chunk_of in enumerate(report.places) if chunk_of == place]
            said = " ".join(_token(report, i) for i in mine)
            say(f"chunk {place + 1}: {said or '(nothing)'}")
            say(f"  ids: {' '.join(str(number) for number in chunk.ids)}")


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _token(report: "PromptReport", index: int) -> str:
    spelling = report.tokens[index].removesuffix("</w>")
    weight = report.weights[index]
    return spelling if weight == 1 else f"{spelling}({weight:.4g})"


def _part(part: "Asked", reports: "list[PromptReport]") -> dict[str, Any]:
    stretches = [
        {"until": stretch.until, "text": stretch.text, **_document(report)}
        for stretch, report in zip(part.stretches, reports, strict=True)
    ]
    return {"weight": part.weight, "stretches": stretches}


def _document(report: "PromptReport") -> dict[str, Any]:
    tokens = zip(report.tokens, report.ids, report.weights, report.places, strict=True)
    return {
        "tokens": [{"token": t, "id": i, "weight": w, "chunk": c} for t, i, w, c in tokens],
        "chunks": [list(chunk.ids) for chunk in report.chunks],
        "cut": report.cut,
        "cut_tokens": report.cut_tokens,
    }
