"""Pictures that steer what is drawn: for control networks, and in place of words."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from sfumato.errors import RequestError
from sfumato.request.checks import checked_name, checked_number, nearest
from sfumato.request.pictures import ResizeMode

ControlMode = Literal["balanced", "prompt", "control", "guess"]

# What a picture is turned into before a control network sees it: name -> option -> (default, lowest, highest).
PREPROCESSORS: dict[str, dict[str, tuple[float, float, float]]] = {
    "none": {},
    "canny": {"low": (100, 0, 1000), "high": (200, 0, 1000)},
    "scribble": {"threshold": (32, 1, 255)},
    "soft_edge": {"blur": (1, 0, 20)},
    "blur": {"sigma": (9, 0, 100)},
    "tile": {"factor": (1, 1, 64)},
    "colour": {"cell": (64, 1, 1024)},
    "shuffle": {"seed": (0, 0, 2**31)},
    "luminance": {"gamma": (1, 0.1, 10)},
    "threshold": {"level": (127, 0, 255)},
    "binary": {},
    "invert": {},
    "inpaint": {},
}

# What a ControlNet for several kinds of pictures (Union) is told that it sees, in the order of its embeddings; the last
# two are ProMax's. https://github.com/xinsir6/ControlNetPlus
TASKS = ("openpose", "depth", "soft_edge", "line", "normal", "segment", "tile", "repaint")
TASK_OF = {"soft_edge": "soft_edge", "scribble": "soft_edge", "canny": "line", "invert": "line", "tile": "tile"}

_WEIGHT = (-10.0, 10.0)  # 2 is the most that the other tools' sliders offer; beyond 10 nothing is left of a picture


@dataclass(frozen=True)
class Control:
    """A control network (an alias, a path, `org/name`: a ControlNet or a T2I-Adapter) and the picture that it sees.

    image         a path, or `sha256:...` of the upright pixels of a picture that is handed over beside the request;
                  None is the request's own start picture
    preprocessor  what the picture is turned into first, a key of PREPROCESSORS, and `options` of it
    weight        how much of what the network makes counts
    start, end    the part of the steps in which it acts, from 0 to 1
    mode          balanced; prompt: less in the finer levels; control: that, and on the branch of the prompt alone;
                  guess: diffusers' guess mode, which finds out what the picture is without words
    resize        how the picture is brought to the size of the request: its middle (crop), whole with its edge
                  repeated (fill), or out of shape (stretch)
    task          one of TASKS: what a network for several kinds of pictures (ControlNet Union) sees; None is what the
                  preprocessor makes

    Raises RequestError.
    """

    model: str
    image: str | None = None
    preprocessor: str = "none"
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: ControlMode = "balanced"
    resize: ResizeMode = "crop"
    options: Mapping[str, float] = field(default_factory=dict)
    task: str | None = None

    def __post_init__(self) -> None:
        _check_acting(self, "controls", "model", "image")
        for name, choices in (("mode", get_args(ControlMode)), ("resize", get_args(ResizeMode))):
            if getattr(self, name) not in choices:
                raise RequestError(
                    f"controls has {name} {getattr(self, name)!r}; it must be one of {', '.join(choices)}", "controls"
                )
        if self.task is not None and self.task not in TASKS:
            raise RequestError(f"controls has task {self.task!r}; it must be one of {', '.join(TASKS)}", "controls")
        object.__setattr__(self, "options", checked_options(self.preprocessor, self.options))

    def __hash__(self) -> int:
        return hash((self.model, self.image, self.preprocessor, tuple(sorted(self.options.items()))))

    def to_dict(self) -> dict[str, Any]:
        """The control as JSON values; what is at its default None or empty is left out."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value != {}}


@dataclass(frozen=True)
class ImagePrompt:
    """An IP-Adapter (an alias, a path, `org/name`) and the pictures that say what is drawn, as words do.

    images        one or several: paths, or `sha256:...` of the upright pixels of pictures that are handed over
    weight        how much they count beside the words
    start, end    the part of the steps in which they act, from 0 to 1
    encoder       the image encoder; None is the one that lies where the adapter was published with it
    mask          where in the picture they count (white), named as `images` are; None is everywhere

    Raises RequestError.
    """

    model: str
    images: Sequence[str]
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    encoder: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        _check_acting(self, "image_prompts", "model", "encoder", "mask")
        given = (self.images,) if isinstance(self.images, str) else self.images
        if not isinstance(given, Sequence) or isinstance(given, bytes) or not given:
            raise RequestError(
                f"image_prompts has images {self.images!r}; they must be one picture or a list of them", "image_prompts"
            )
        images = tuple(checked_name("image_prompts", each) for each in given)
        if None in images:
            raise RequestError("image_prompts has an image that is null; name a picture", "image_prompts")
        object.__setattr__(self, "images", images)

    @property
    def network(self) -> str:
        """The name of the adapter, with that of its encoder where one is named."""
        return self.model if self.encoder is None else f"{self.model} with {self.encoder}"

    def to_dict(self) -> dict[str, Any]:
        """The image prompt as JSON values; what is at its default None is left out."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None} | {"images": list(self.images)}


def checked_options(preprocessor: str, options: object) -> dict[str, float]:
    """The options of a preprocessor, those that are not given at their defaults. Raises RequestError."""
    if not isinstance(preprocessor, str) or preprocessor not in PREPROCESSORS:
        meant = nearest(str(preprocessor), list(PREPROCESSORS), "preprocessors")
        raise RequestError(f"controls has preprocessor {preprocessor!r}; {meant}", "controls")
    known = PREPROCESSORS[preprocessor]
    if not isinstance(options, Mapping):
        raise RequestError(f"controls has options {options!r}; they must be names and numbers", "controls")
    for name in options:
        if name not in known:
            there = ", ".join(known) or "none"
            raise RequestError(f"controls has option {name!r}; those of {preprocessor} are: {there}", "controls")
    checked = {}
    for name, (default, low, high) in known.items():
        checked[name] = _number("controls", f"{preprocessor}'s {name}", options.get(name, default), (low, high))
    return checked


P = TypeVar("P", Control, ImagePrompt)


def checked_controls(value: object) -> tuple[Control, ...]:
    """What stands for controls as a tuple of them. Raises RequestError that names what is none."""
    return _checked_pictures(value, Control, "controls")


def checked_image_prompts(value: object) -> tuple[ImagePrompt, ...]:
    """What stands for image prompts as a tuple of them. Raises RequestError that names what is none."""
    return _checked_pictures(value, ImagePrompt, "image_prompts")


def _checked_pictures(value: object, kind: type[P], name: str) -> tuple[P, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RequestError(f"{name} is {value!r}; it must be a list of objects", name)
    return tuple(_checked_part(each, kind, name) for each in value)


def _checked_part(value: object, kind: type[P], name: str) -> P:
    if isinstance(value, kind):
        return value
    known = [each.name for each in fields(kind)]
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        raise RequestError(f"{name} has {value!r}; each is an object of {', '.join(known)}", name)
    missing = {each.name for each in fields(kind) if each.default is each.default_factory is MISSING} - set(value)
    if missing:
        raise RequestError(f"{name} has {dict(value)!r} without {', '.join(sorted(missing))}", name)
    return kind(**value)


def _check_acting(part: Control | ImagePrompt, name: str, *names: str) -> None:
    """Checks what all pictures that steer have: names, a weight, a start and an end."""
    for each in names:
        object.__setattr__(part, each, checked_name(name, getattr(part, each)))
    if part.model is None:
        raise RequestError(f"{name} has no model; name a file, a folder or an alias", name)
    for each, bounds in (("weight", _WEIGHT), ("start", (0.0, 1.0)), ("end", (0.0, 1.0))):
        object.__setattr__(part, each, _number(name, each, getattr(part, each), bounds))
    if part.start > part.end:
        raise RequestError(f"{name} has start {part.start:g} after end {part.end:g}", name)


def _number(name: str, what: str, value: object, bounds: tuple[float, float]) -> float:
    """A number from a part of a request. Raises RequestError that names the field and what in it."""
    try:
        checked = checked_number(f"{name}: {what}", value, *bounds)
    except RequestError as error:
        raise RequestError(str(error), name) from None
    if checked is None:
        raise RequestError(f"{name}: {what} is null; leave it out for the default", name)
    return checked
