"""bench: this machine's speed, beside the hardware limit."""

from dataclasses import asdict
from typing import Annotated

import typer

from sfumato.cli.options import Machine, Voice, Which, between, grouped, parse_size
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import progress
from sfumato.errors import RequestError
from sfumato.request import SIDE_RANGE

app = typer.Typer()
TITLES = {"text": "reading the words", "step": "a step with guidance", "decode": "decoding"}


@app.command("bench")
@grouped
def bench(
    which: Which,
    machine: Machine,
    voice: Voice,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height in pixels; the model's own by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(parser=between(1, 1000), metavar="N", help="Runs of each part.")] = 3,
) -> None:
    """Measure this machine's speed, beside its limit.

    Times the parts of a picture, and one large matrix product: what the machine does
    at most. Operations are those of convolutions and matrix products.
    """
    asked = check_size(size)
    from sfumato.speed import measure

    with progress() as bar:
        bar("loading the model")
        engine = machine.engine()
        model = engine.model(which.model, which.vae, prediction=which.prediction)
        bar("measuring")
        speed = measure(model, *(asked or (model.family.size,) * 2), repeats=repeats)
    steps = model.family.steps
    precision = str(model.dtype).removeprefix("torch.")
    about = {"model": model.name, "device": str(model.device), "precision": precision, "steps": steps}
    if voice.json:
        write_document({**about, **asdict(speed), "picture": speed.picture(steps)})
        return
    write_line(f"{model.name}, {speed.width}x{speed.height}, on {model.device} in {precision}")
    write_line(f"a matrix product: {speed.limit / 1e9:.0f} GFLOP/s, the limit")
    for timing in speed.parts:
        write_line(
            f"{TITLES[timing.part]}: {timing.seconds:.3f} s, {timing.rate / 1e9:.0f} GFLOP/s, "
            f"{timing.rate / speed.limit:.0%} of the limit"
        )
    write_line(f"a picture of {steps} steps: {speed.picture(steps):.1f} s")


def check_size(text: str | None) -> tuple[int, int] | None:
    """Width and height of --size, None without it. Raises RequestError for sides that no model draws."""
    asked = parse_size(text)
    low, high = SIDE_RANGE
    if asked is not None and not (low <= min(asked) and max(asked) <= high):
        raise RequestError(f"--size is {text}; a side must be from {low} to {high} pixels", "size")
    return asked
