"""txt2img, img2img, inpaint and outpaint: words, and perhaps a picture, to pictures."""

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from sfumato.cli.guides import Grey, Guides, Sizes
from sfumato.cli.options import (
    Destination,
    Drawing,
    Voice,
    Which,
    grouped,
    parse_embedding,
    parse_grid,
    parse_lora,
    parse_size,
)
from sfumato.cli.output import Gallery, slug, write_document
from sfumato.cli.progress import Bar, note, progress
from sfumato.cli.prompts import read_prompts
from sfumato.cli.remote import Painter
from sfumato.cli.starting import Enlarging, Fitting, Growing, Masking, Share, StrengthRule, Varying
from sfumato.cli.steering import Steered
from sfumato.request import Dialect, NoiseMode, Request, checked_embeddings, checked_loras, parse_region
from sfumato.request.texts import RANDOM

if TYPE_CHECKING:
    from PIL.Image import Image

    from sfumato.client import Client
    from sfumato.engine import Engine

app = typer.Typer()

MARKS = re.compile(r"<\w+:[^<>]*>|__[\w./-]+__|\b(?:BREAK|AND)\b")
"""What is in a prompt and no word of it."""

Prompts = Annotated[
    list[str], typer.Argument(metavar="PROMPT", help="Words; @FILE or - reads one prompt a line.", show_default=False)
]
StartImage = Annotated[str, typer.Argument(metavar="IMAGE", help="The picture to start from.", show_default=False)]
Mask = Annotated[str, typer.Argument(metavar="MASK", help="As large as IMAGE; white is repainted.", show_default=False)]


@app.command("txt2img")
@grouped
def txt2img(
    prompts: Prompts,
    which: Which,
    drawing: Drawing,
    varying: Varying,
    enlarging: Enlarging,
    steered: Steered,
    guides: Guides,
    sizes: Sizes,
    destination: Destination,
    machine: Painter,
    voice: Voice,
) -> None:
    """Draw what the words say."""
    begins = fields_of(varying, enlarging, steered, guides, sizes)
    draw(request_of(prompts, which, drawing, begins), destination, machine, voice)


@app.command("img2img")
@grouped
def img2img(
    image: StartImage,
    prompts: Prompts,
    which: Which,
    drawing: Drawing,
    varying: Varying,
    steered: Steered,
    fitting: Fitting,
    guides: Guides,
    sizes: Sizes,
    destination: Destination,
    machine: Painter,
    voice: Voice,
    strength: Share = None,
    strength_rule: StrengthRule = None,
) -> None:
    """Draw what the words say, beginning from a picture."""
    begins = started(image, strength, strength_rule) | fields_of(varying, steered, fitting, guides, sizes)
    draw(request_of(prompts, which, drawing, begins), destination, machine, voice)


@app.command("inpaint")
@grouped
def inpaint(
    image: StartImage,
    mask: Mask,
    prompts: Prompts,
    which: Which,
    drawing: Drawing,
    varying: Varying,
    steered: Steered,
    fitting: Fitting,
    masking: Masking,
    grey: Grey,
    guides: Guides,
    sizes: Sizes,
    destination: Destination,
    machine: Painter,
    voice: Voice,
    strength: Share = None,
    strength_rule: StrengthRule = None,
) -> None:
    """Repaint the white part of a mask.

    What is black in the mask stays as it is, byte for byte.
    """
    begins = started(image, strength, strength_rule) | {"mask": mask}
    begins |= fields_of(varying, steered, fitting, guides, sizes, masking, grey)
    draw(request_of(prompts, which, drawing, begins), destination, machine, voice)


@app.command("outpaint")
@grouped
def outpaint(
    image: StartImage,
    prompts: Prompts,
    growing: Growing,
    which: Which,
    drawing: Drawing,
    varying: Varying,
    destination: Destination,
    machine: Painter,
    voice: Voice,
    strength: Share = None,
    strength_rule: StrengthRule = None,
) -> None:
    """Draw what lies beyond the sides of a picture.

    The picture keeps its bytes but for a soft edge at those sides.
    """
    begins = started(image, strength, strength_rule) | fields_of(growing, varying)
    draw(request_of(prompts, which, drawing, begins), destination, machine, voice)


class Fields(Protocol):
    """A group of options."""

    def fields(self) -> dict[str, Any]:
        """The fields of the request that they are."""


def fields_of(*groups: Fields) -> dict[str, Any]:
    """The fields of several groups of options."""
    return {name: value for group in groups for name, value in group.fields().items()}


def started(image: str | None, strength: float | None, strength_rule: str | None) -> dict[str, Any]:
    """The fields about beginning from a picture."""
    return {"image": image, "strength": strength, "strength_rule": strength_rule}


def request_of(arguments: list[str], which: Which, drawing: Drawing, begins: Mapping[str, Any]) -> Request:
    """The request that the options describe, with the fields about what it begins from and how it is guided.

    Raises RequestError for the first option that is out of range.
    """
    width, height = parse_size(drawing.size) or (None, None)
    prompts = read_prompts(arguments)
    noise: NoiseMode = drawing.noise  # type: ignore[assignment]  # the request refuses any other text
    dialect: Dialect = drawing.dialect  # type: ignore[assignment]  # the same
    return Request(
        prompt=prompts if len(prompts) > 1 else prompts[0],
        negative_prompt=drawing.negative,
        model=which.model,
        vae=which.vae,
        prediction=which.prediction,  # type: ignore[arg-type]  # the request refuses any other text
        seed=None if drawing.seed == RANDOM else drawing.seed,
        step_seed_delta=drawing.step_seed_delta,
        steps=drawing.steps,
        guidance=drawing.guidance,
        image_guidance=drawing.image_guidance,
        guidance_rescale=drawing.guidance_rescale,
        eta=drawing.eta,
        clip_skip=drawing.clip_skip,
        sampler=drawing.sampler,
        spacing=drawing.spacing,
        count=drawing.count,
        batch=drawing.batch,
        noise=noise,
        dialect=dialect,
        regions=[parse_region(text) for text in drawing.region or ()],
        styles=drawing.style or (),
        strict=drawing.strict,
        loras=checked_loras([parse_lora(text) for text in drawing.lora or ()]),
        allow_unmatched=drawing.allow_unmatched,
        embeddings=checked_embeddings([parse_embedding(text) for text in drawing.embedding or ()]),
        **{"width": width, "height": height, **begins},
    )


def draw(request: Request, destination: Destination, machine: Painter, voice: Voice) -> None:
    """Run a request and write its pictures as they come; those that are finished stay when it is interrupted."""
    columns = parse_grid(destination.grid, request.total)
    gallery = Gallery(
        destination.output,
        request.total,
        overwrite=destination.overwrite,
        metadata=not destination.no_metadata,
        told=not voice.json,
    )
    seen = (
        *(each.image for each in request.controls),
        *(name for each in request.image_prompts for name in (*each.images, each.mask)),
        *(region.mask for region in request.regions),
    )
    for source in (request.image, request.mask, *seen):
        if source is not None:
            check_picture(source)
    tell_unseen(request)
    started = time.monotonic()
    document: dict[str, Any] = {"pictures": gallery.written, "grid": None, "finished": False}
    try:
        with machine.painter() as painter:
            pictures = paint(painter, request, gallery, document)
        if columns is not None:
            document["grid"] = str(gallery.add_grid(pictures, columns))
        document["finished"] = True
    finally:
        if voice.json and (document["finished"] or gallery.written):
            write_document({**document, "seconds": round(time.monotonic() - started, 3)})


def paint(painter: "Engine | Client", request: Request, gallery: Gallery, document: dict[str, Any]) -> "list[Image]":
    """The pictures of a request, each written into the gallery when it is finished, with a bar meanwhile."""
    from sfumato.events import Finished, Loading, Progress

    pictures = []
    with progress() as bar:
        for event in painter.run(request, metadata=gallery.metadata):
            if isinstance(event, Loading):
                bar(f"loading {event.model}")
            elif isinstance(event, Progress):
                _show(bar, event.pictures, request.total, event.step, event.steps)
            elif isinstance(event, Finished):
                prompt = request.prompts[event.index // request.count]
                size = {"width": event.picture.width, "height": event.picture.height}
                gallery.add(
                    event.picture, f"{event.seed}-{slug(prompt)}", {"seed": event.seed, "prompt": prompt, **size}
                )
                pictures.append(event.picture)
                document["request"] = event.request.to_dict()
    return pictures


def tell_unseen(request: Request) -> None:
    """Tell people, once, which words the embedded model has never seen; of other models that is not known."""
    from sfumato.errors import ModelNotFoundError
    from sfumato.scenes.familiar import unseen_words
    from sfumato.weights.locate import embedded

    try:
        name = embedded().name
    except ModelNotFoundError:  # this build has none
        return
    if request.model not in (None, name) or request.embeddings or request.loras:
        return
    texts = [MARKS.sub(" ", text) for text in (*request.prompts, *(region.prompt for region in request.regions))]
    unseen = unseen_words(" ".join(texts))
    if unseen:
        more = "" if len(unseen) <= 8 else f" and {len(unseen) - 8} more"
        note(
            f"The embedded model has never seen: {', '.join(unseen[:8])}{more}. It knows the words of its drawn world, "
            "which `sfumato scenes vocabulary` lists."
        )


def check_picture(source: str) -> None:
    """Open a picture as far as its header, so that a wrong path is told before a model is loaded.

    Raises PictureError.
    """
    from PIL import Image, UnidentifiedImageError

    from sfumato.errors import PictureError, reason

    try:
        with Image.open(source):
            pass
    except FileNotFoundError:
        raise PictureError(f"{source}: there is no such file. Give the path of a PNG, JPEG or WebP picture.") from None
    except UnidentifiedImageError:
        raise PictureError(f"{source} is not a picture that can be read; PNG, JPEG and WebP can.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"{source} cannot be read as a picture: {reason(error)}.") from error


def _show(bar: Bar, numbers: tuple[int, ...], total: int, step: int, steps: int) -> None:
    which = f"{numbers[0] + 1}" if len(numbers) == 1 else f"{numbers[0] + 1}-{numbers[-1] + 1}"
    bar("drawing" if total == 1 else f"picture {which} of {total}", step, steps)
