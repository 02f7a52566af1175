"""Pictures that steer: the networks that see them, and what a network sees of a picture."""

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from sfumato.request import PREPROCESSORS, SIDE_RANGE, TASKS, ResizeMode
from sfumato.server.control_files import role_of
from sfumato.server.routes.parts import PROBLEMS, Asked, Responses
from sfumato.server.values import Value
from sfumato.server.views import file_of
from sfumato.weights.known import known

router = APIRouter(tags=["controls"], responses=PROBLEMS)

PNG: Responses = {200: {"content": {"image/png": {}}, "description": "The picture."}}
Side = Annotated[int, Field(ge=SIDE_RANGE[0], le=SIDE_RANGE[1], strict=True)]


class ControlFile(Value):
    """A network that can be named, in `controls` or, if its `role` is image_prompt (an IP-Adapter), `image_prompts`."""

    name: str
    source: str
    size_bytes: int | None
    role: Literal["control", "image_prompt"]


class Controls(Value):
    """The networks that pictures steer by."""

    controls: list[ControlFile]


class Option(Value):
    """A number of a preprocessor."""

    name: str
    default: float
    low: float
    high: float


class Preprocessor(Value):
    """What a picture can be turned into before a network sees it."""

    name: str
    options: list[Option]


class Preprocessors(Value):
    """What a control's `preprocessor` may be, and its `task`."""

    preprocessors: list[Preprocessor]
    tasks: list[str]


class Sight(Value):
    """A picture, by its id, and how a control network is to see it: at `width` x `height`, or at its own size."""

    image: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]
    preprocessor: Annotated[str, Field(max_length=40)] = "none"
    options: dict[str, float] = Field(default={})
    width: Side | None = None
    height: Side | None = None
    resize: ResizeMode = "crop"


@router.get("/controls")
def controls() -> Controls:
    """The ControlNets, T2I-Adapters and IP-Adapters that can be named."""
    files = known("controlnet")
    return Controls(controls=[ControlFile(**file_of(each), role=role_of(Path(each.place))) for each in files])


@router.get("/preprocessors")
def preprocessors() -> Preprocessors:
    """What a picture can be turned into, and the numbers that say how."""
    made = []
    for name, options in PREPROCESSORS.items():
        numbers = [Option(name=each, default=of, low=low, high=high) for each, (of, low, high) in options.items()]
        made.append(Preprocessor(name=name, options=numbers))
    return Preprocessors(preprocessors=made, tasks=list(TASKS))


@router.post("/preprocess", response_class=Response, responses=PNG)
def preprocess(service: Asked, body: Sight) -> Response:
    """What a control network would see of a picture."""
    content, own = service.pixels_bytes(body.image), service.pixels_place(body.image)[1]
    size = (body.width or own[0], body.height or own[1])
    made = service.seen(content, body.preprocessor, body.options, size=size, resize=body.resize)
    return Response(made, media_type="image/png", headers={"Cache-Control": "no-store"})
