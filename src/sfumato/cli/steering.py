"""Options about pictures that steer what is drawn, and the verb that shows what is made of them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.options import NUMBER, Destination, Voice, grouped, number, parse_size
from sfumato.cli.output import Gallery, slug, write_document
from sfumato.request import PREPROCESSORS, TASKS, Control, ImagePrompt, checked_options

SPAN = re.compile(r"(\d*\.?\d+)-(\d*\.?\d+)")

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class Steered:
    """What steers the drawing beside the words."""

    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL[:IMAGE[:W[:A-B]]]",
            help="A ControlNet or T2I-Adapter, the picture that it sees (the start picture by default), its weight, "
            "and in which part of the steps it acts, such as 0-0.5. Repeatable.",
        ),
    ] = None
    preprocessor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=N,...]", help="What it is turned into first; one for all controls, or one for each."
        ),
    ] = None
    control_mode: Annotated[
        list[str] | None,
        typer.Option(metavar="MODE", help="balanced, prompt, control or guess; one for all controls, or one for each."),
    ] = None
    control_resize: Annotated[
        list[str] | None,
        typer.Option(metavar="MODE", help="crop (by default), fill or stretch; one for all controls, or one for each."),
    ] = None

    control_task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help=f"What a ControlNet Union sees: {', '.join(TASKS)}; by default what the preprocessor makes. One for "
            "all controls, or one for each.",
        ),
    ] = None

    image_prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL:IMAGE[,IMAGE...][:W[:A-B]]",
            help="An IP-Adapter and the pictures that it draws from, their weight, and the part of the steps in which "
            "they act. Repeatable.",
        ),
    ] = None
    image_prompt_mask: Annotated[
        str | None,
        typer.Option(metavar="MASK", help="Where the image prompts count: white. Everywhere by default."),
    ] = None
    image_encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="The image encoder of the IP-Adapters; looked for beside them."),
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of the request. Raises typer.BadParameter."""
        prompts = [
            ImagePrompt(**parse_image_prompt(each), encoder=self.image_encoder, mask=self.image_prompt_mask)
            for each in self.image_prompt or ()
        ]
        controls = [parse_control(text) for text in self.control or ()]
        count = len(controls)
        preprocessors = [parse_preprocessor(text) for text in self.preprocessor or ()]
        given: dict[str, list[dict[str, Any]]] = {
            "--preprocessor": [{"preprocessor": name, "options": options} for name, options in preprocessors],
            "--control-mode": [{"mode": mode} for mode in self.control_mode or ()],
            "--control-resize": [{"resize": mode} for mode in self.control_resize or ()],
            "--control-task": [{"task": task} for task in self.control_task or ()],
        }
        for option, values in given.items():
            for control, value in zip(controls, for_each(option, values, count), strict=True):
                control.update(value)
        return {"controls": [Control(**control) for control in controls], "image_prompts": prompts}


def for_each(option: str, values: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """A value for each of `count` controls, from none, one for all, or as many. Raises typer.BadParameter."""
    if len(values) not in (0, 1, count) or (values and not count):
        raise typer.BadParameter(
            f"{option} is given {len(values)} times for {count} controls; give it once, or as often as --control."
        )
    return [values[place if len(values) == count else 0] if values else {} for place in range(count)]


def parse_control(text: str) -> dict[str, Any]:
    """The fields of a control from `canny.safetensors:pose.png:0.8:0-0.5`. What exists is a path whole."""
    names, numbers = parse_acting(text)
    if Path(names).expanduser().exists() or ":" not in names:
        return {"model": names, **numbers}
    model, image = split_picture(names, lambda image: Path(image).expanduser().is_file())
    return {"model": model, "image": image, **numbers}


def parse_image_prompt(text: str) -> dict[str, Any]:
    """The fields of an image prompt from `ip-adapter.safetensors:a.png,b.png:0.6`. Raises typer.BadParameter."""
    names, numbers = parse_acting(text)
    if ":" not in names:
        raise typer.BadParameter(f"--image-prompt is {text!r}; it must be MODEL:IMAGE, or MODEL:IMAGE,IMAGE.")
    model, images = split_picture(
        names, lambda found: all(Path(each).expanduser().is_file() for each in found.split(","))
    )
    whole = Path(images).expanduser().is_file()  # a comma may be part of a path
    return {"model": model, "images": [images] if whole else images.split(","), **numbers}


def split_picture(names: str, is_there: Callable[[str], bool]) -> tuple[str, str]:
    """Model and picture from `model:picture`, at the last colon that a picture follows, or else at the last."""
    colons = [place for place, letter in enumerate(names) if letter == ":"]
    for place in reversed(colons):
        if is_there(names[place + 1 :]):
            return names[:place], names[place + 1 :]
    model, _, image = names.rpartition(":")
    return model, image


def parse_acting(text: str) -> tuple[str, dict[str, float]]:
    """What stands before the weight and the part of the steps, and these, as far as they are there."""
    rest, _, last = text.rpartition(":")
    found = SPAN.fullmatch(last)
    numbers = {} if found is None or not rest else {"start": float(found[1]), "end": float(found[2])}
    if numbers:
        text = rest
    rest, _, last = text.rpartition(":")
    if rest and NUMBER.fullmatch(last) and not Path(text).expanduser().exists():
        return rest, {"weight": float(last), **numbers}
    return text, numbers


def parse_preprocessor(text: str) -> tuple[str, dict[str, float]]:
    """A preprocessor's name and options from `canny:low=50,high=120`. Raises typer.BadParameter."""
    name, _, rest = text.partition(":")
    options = {}
    for pair in filter(None, rest.split(",")):
        option, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} of {name} is no option; write it as NAME=NUMBER.")
        options[option.strip()] = number(value)
    return name, options


@app.command("control")
@grouped
def control(
    preprocessor: Annotated[
        str,
        typer.Argument(
            metavar="PREPROCESSOR", help=f"{', '.join(PREPROCESSORS)}; as canny:low=50,high=120.", show_default=False
        ),
    ],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Any picture.", show_default=False)],
    destination: Destination,
    voice: Voice,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Cropped to this size first.")] = None,
) -> None:
    """Show what a control network would see of a picture."""
    from sfumato.cli.drawing import check_picture

    name, options = parse_preprocessor(preprocessor)
    checked = checked_options(name, options)
    wanted = parse_size(size)
    gallery = Gallery(destination.output, 1, overwrite=destination.overwrite, metadata=False, told=not voice.json)
    check_picture(image)
    from sfumato.controls.preprocess import preprocess
    from sfumato.images import crop_to_fill, open_picture, to_rgb

    picture = to_rgb(open_picture(image))
    made = preprocess(picture if wanted is None else crop_to_fill(picture, *wanted), name, checked)
    gallery.add(made, f"{name}-{slug(Path(image).stem)}", {"preprocessor": name, "options": checked})
    if voice.json:
        write_document(gallery.written[0])
