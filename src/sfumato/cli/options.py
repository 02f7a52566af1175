"""Options that several verbs share, as frozen groups, and the way to give a group to a verb."""

import functools
import inspect
import itertools
import logging
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from sfumato.engine import Engine

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
SIZE = re.compile(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})")


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb` as typer reads it: each parameter that is a dataclass taken apart into one option per field.

    So that twenty options are written once and not once per verb.
    """
    parameters = inspect.signature(verb).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}
    kept = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters if p.name not in groups]
    options = [_option(kind, field) for kind in groups.values() for field in fields(kind)]

    @functools.wraps(verb)
    def taken_apart(**given: Any) -> None:
        packed = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)}) for name, kind in groups.items()
        }
        verb(**given, **packed)

    taken_apart.__signature__ = inspect.Signature([*kept, *options])  # type: ignore[attr-defined]
    return taken_apart


def _option(kind: type, field: Field[Any]) -> inspect.Parameter:
    hints = get_type_hints(kind, include_extras=True)
    assert field.default is not MISSING, f"{kind.__name__}.{field.name} needs a default: it is an option"
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
    )


def whole(text: str) -> int:
    """A whole number. Raises typer.BadParameter that says what was found."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number.") from None


def between(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        value = whole(text)
        if not low <= value <= high:
            raise typer.BadParameter(f"{value} is not from {low} to {high}.")
        return value

    return parse


def number(text: str) -> float:
    """A number. Raises typer.BadParameter that says what was found."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number.") from None


def _be_quiet(wanted: bool) -> None:
    if wanted:
        logging.getLogger().setLevel(logging.ERROR)


def _be_verbose(wanted: bool) -> None:
    if wanted:
        logging.getLogger("sfumato").setLevel(logging.DEBUG)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How the verb speaks. How much is said lies in the loggers' levels, where everybody can ask for it."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")] = False
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", callback=_be_quiet, help="No progress, no warnings; errors only.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", callback=_be_verbose, help="Say more, and show where an error came from.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how exactly it is computed."""

    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1 or mps; the fastest by default.")
    ] = None
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="float32, bfloat16 or float16; what suits the device by default.")
    ] = None

    memory: Annotated[
        str, typer.Option(metavar="BUDGET", help="auto (what is free), low (as little as can be), or a size: 4GB.")
    ] = "auto"

    def engine(self) -> "Engine":
        """The engine, in a process whose freed memory is kept for the next tensor. Raises RequestError."""
        from sfumato.allocator import keep_freed_memory
        from sfumato.engine import Engine

        engine = Engine(self.device, self.dtype, memory=self.memory)
        if self.memory == "auto":
            keep_freed_memory()
        return engine


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which model."""

    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", metavar="NAME|PATH", help="Alias, file, folder or org/name; the embedded one by default."
        ),
    ] = None
    vae: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="Another autoencoder than the model's own.")] = (
        None
    )
    prediction: Annotated[
        str | None, typer.Option(metavar="NAME", help="epsilon, v or sample, where the model's files do not say it.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What a picture is drawn with; None is what suits the model."""

    negative: Annotated[str, typer.Option("-n", "--negative", metavar="TEXT", help="What should not be there.")] = ""
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height in pixels; the model's own by default.")
    ] = None
    steps: Annotated[int | None, typer.Option(parser=whole, metavar="N", help="Sampling steps.")] = None
    guidance: Annotated[
        float | None,
        typer.Option(parser=number, metavar="G", help="How strongly the words count; 1 = without the negative branch."),
    ] = None
    image_guidance: Annotated[
        float | None,
        typer.Option(parser=number, metavar="G", help="How strongly the picture counts, of InstructPix2Pix models."),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        typer.Option(
            parser=number, metavar="F", help="0 to 1: how much of the contrast that guidance adds is taken back."
        ),
    ] = None
    sampler: Annotated[str | None, typer.Option(metavar="NAME", help="ddim, pndm, euler_a, dpmpp_2m_karras, ...")] = (
        None
    )
    spacing: Annotated[
        str | None, typer.Option(metavar="NAME", help="The noise levels: leading, trailing, karras, ...")
    ] = None
    eta: Annotated[
        float | None, typer.Option(parser=number, metavar="F", help="0 to 1: how much fresh noise a DDIM step adds.")
    ] = None
    clip_skip: Annotated[
        int | None,
        typer.Option(
            parser=whole, metavar="N", help="Layers of the text encoder to leave out beyond the family's own."
        ),
    ] = None
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH[:W[:T]]",
            help="A LoRA; its weight in the UNet, 1 by default, and in the text encoders, W by default. Repeatable.",
        ),
    ] = None
    allow_unmatched: Annotated[
        bool,
        typer.Option("--allow-unmatched", help="Leave out what LoRAs have for layers that are not there."),
    ] = False
    embedding: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|PATH[:WORD]", help="The embedding of a new word for prompts. Repeatable."),
    ] = None
    dialect: Annotated[
        str, typer.Option(metavar="NAME", help="How weights in prompts are written: a1111, comfy, compel or plain.")
    ] = "a1111"
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE[@W]: PROMPT",
            help="A prompt for a part: left, 'top right', ..., L,T,W,H from 0 to 1, or a mask picture. Repeatable.",
        ),
    ] = None
    style: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A style of styles.csv around the prompts. Repeatable.")
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            parser=whole, metavar="N", help="Of the first picture, the next has N + 1; random by default, and -1."
        ),
    ] = None
    count: Annotated[int, typer.Option(parser=whole, metavar="N", help="Pictures per prompt.")] = 1
    batch: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="Pictures that are computed together.")
    ] = None
    noise: Annotated[
        str, typer.Option(metavar="MODE", help="keyed, sequential (diffusers' order) or philox (CUDA's numbers).")
    ] = "keyed"
    step_seed_delta: Annotated[
        int | None,
        typer.Option(parser=whole, metavar="N", help="Added to the seed for the noise of the steps; A1111's ENSD."),
    ] = None
    strict: Annotated[
        bool, typer.Option("--strict", help="The same bytes alone and in company: pictures one by one.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where pictures go."""

    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE|DIR", help="outputs/TIME-SEED-WORDS.png by default."),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False
    grid: Annotated[
        str | None, typer.Option(metavar="[RxC]", help="Also one picture of them all, in R rows and C columns.")
    ] = None
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Write nothing into the pictures about how they were made.")
    ] = False


def parse_size(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """Width and height in pixels from `640x480`. Raises typer.BadParameter."""
    if text is None:
        return None
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{option} is {text!r}; it must be width x height in pixels, such as 512x512.")
    return int(found[1]), int(found[2])


def parse_lora(text: str) -> tuple[str | float, ...]:
    """Name and weights from `style.safetensors:0.8:0.5`. A colon may be part of a path: what exists is a path whole."""
    parts = text.split(":")
    numbers = list(itertools.takewhile(NUMBER.fullmatch, reversed(parts[1:])))[:2]
    for count in range(len(numbers) + 1):
        name = ":".join(parts[: len(parts) - count])
        if count == len(numbers) or Path(name).expanduser().exists():
            return name, *(float(part) for part in parts[len(parts) - count :])
    raise AssertionError("the loop ends with the last count")


def parse_embedding(text: str) -> tuple[str, ...]:
    """Name and word from `toy.safetensors:<toy>`. A colon may be part of a path: what exists is a path whole."""
    name, colon, word = text.rpartition(":")
    if not colon or not word or Path(text).expanduser().exists():
        return (text,)
    return name, word


def parse_grid(text: str | None, pictures: int) -> int | None:
    """The columns of a grid `RxC`; 0 when it is left to the number of pictures, None for no grid.

    Raises typer.BadParameter for what is none, and for one without room for all pictures.
    """
    if text is None or text == "auto":
        return None if text is None else 0
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"--grid is {text!r}; it must be rows x columns, such as 2x3, or nothing.")
    rows, columns = int(found[1]), int(found[2])
    if rows * columns < pictures:
        raise typer.BadParameter(f"--grid is {text}, room for {rows * columns} pictures; {pictures} are asked for.")
    return columns
