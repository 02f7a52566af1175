"""What the service and its API speak of, as checked values with a schema: jobs, pictures, uploads, models."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["draw", "replay"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


class Value(BaseModel):
    """A frozen value without surprises: no other fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Progress(Value):
    """How far a running job is: `picture` of its `pictures` are done, and as many as `together` are being drawn.

    `loading` names the model that is being loaded. Seconds; `left` where it is known.
    """

    step: int = 0
    steps: int = 0
    picture: int = 0
    together: int = 1
    pictures: int = 1
    elapsed: float = 0.0
    left: float | None = None
    loading: str | None = None


class Failure(Value):
    """Why a job has no result."""

    code: str
    detail: str
    hint: str | None = None


class Picture(Value):
    """A picture of the gallery. `sha256` names its pixels, and may stand as `image` or `mask` of a request."""

    id: str
    job: str | None
    index: int
    sha256: str
    width: int
    height: int
    seed: int
    prompt: str
    created: str
    favourite: bool = False
    deleted: bool = False
    file: str
    thumbnail: str
    record: dict[str, Any] | None = Field(default=None, description="what the file's metadata says; in the single GET")


class Job(Value):
    """A job of the queue or the history. Times are ISO 8601 in UTC."""

    id: str
    kind: Kind = "draw"
    state: State
    title: str
    api: str
    client: str
    priority: int
    position: int | None = Field(default=None, description="place in the queue, from 1")
    request: dict[str, Any] = Field(description="the resolved request")
    created: str
    started: str | None = None
    ended: str | None = None
    attempt: int = 0
    cancelling: bool = False
    progress: Progress | None = None
    pictures: list[Picture] = []
    error: Failure | None = None
    retry_of: str | None = None
    result: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Has it ended, one way or another?"""
        return self.state in ENDED


class Reading(Value):
    """What a picture's metadata says: the fields of a request that were understood, and what was not."""

    tool: str = ""
    request: dict[str, Any] = {}
    text: str = ""
    unread: list[str] = []


class Upload(Value):
    """A picture that was handed in: upright, 8 bits a channel, sRGB. `id` names its pixels."""

    id: str
    width: int
    height: int
    metadata: Reading | None = None


class Defaults(Value):
    """What a model draws with when a request does not say."""

    width: int
    height: int
    steps: int
    guidance: float
    sampler: str | None


class ModelCard(Value):
    """A model that can be named in a request; `missing` says what stands in the way."""

    name: str
    title: str
    family: str
    why: str = ""
    source: str = ""
    size_bytes: int = 0
    hash: str = ""
    inpainting: bool = False
    defaults: Defaults | None = None
    loaded: bool = False
    missing: list[str] = []
    default: bool = False
