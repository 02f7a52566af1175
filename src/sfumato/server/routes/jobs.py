"""Jobs and the queue."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from sfumato.server.problems import Problem
from sfumato.server.routes.parts import PROBLEMS, Asked, Client, Cursor, Limit, Search, place
from sfumato.server.values import Job, State, Value

router = APIRouter(tags=["jobs"], responses=PROBLEMS)


class NewJob(Value):
    """A request to draw."""

    request: dict[str, Any] = Field(description="the fields of a request; what is left out is what suits the model")
    title: Annotated[str, Field(max_length=200)] | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000, strict=True)] = 0
    keep: bool = Field(default=True, strict=True, description="false puts the pictures into the bin as they come")


class Change(Value):
    """A queued job's other place: a priority, or the job that it should come before."""

    priority: Annotated[int, Field(ge=-1000, le=1000, strict=True)] | None = None
    before: Annotated[str, Field(max_length=36)] | None = None


class Wish(Value):
    """How much of a job is to be called done: the pictures that are drawn now, or all."""

    wish: Literal["skip", "stop"] = "stop"


class Jobs(Value):
    """A page of the history."""

    jobs: list[Job]
    next: str | None


class Queue(Value):
    """What runs and what waits."""

    running: list[Job]
    queued: list[Job]
    paused: Literal[False] = False


class Cleared(Value):
    """How many jobs were cancelled."""

    cancelled: int


@router.post("/jobs", status_code=202)
def submit(
    service: Asked,
    client: Client,
    body: NewJob,
    key: Annotated[
        str | None,
        Header(alias="Idempotency-Key", max_length=200, pattern=r"^[\x21-\x7e]+$", description="Posts it only once."),
    ] = None,
) -> Job:
    """Put a request into the queue. Everything that its pictures depend on is decided and kept when this answers."""
    return service.submit(
        body.request, client=client, key=key, title=body.title, priority=body.priority, keep=body.keep
    )


@router.get("/jobs")
def history(
    service: Asked,
    state: Annotated[str, Query(max_length=60, description="States, with commas between them.")] = "",
    search: Search = "",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Jobs:
    """The jobs, newest first."""
    states = [each for each in state.split(",") if each]
    known = State.__args__  # type: ignore[attr-defined]  # a Literal's own values
    for each in states:
        if each not in known:
            raise Problem(422, "request.state", f"state is {each!r}; it must be of {', '.join(known)}", field="state")
    found, following = service.jobs(states=states, search=search, limit=limit, before=place(cursor))
    return Jobs(jobs=found, next=None if following is None else str(following))


@router.get("/jobs/{id}")
def job(service: Asked, id: str) -> Job:
    """A job."""
    return service.job(id)


@router.post("/jobs/{id}/cancel")
def cancel(service: Asked, id: str) -> Job:
    """End it: now if it waits, within a step if it runs."""
    return service.cancel(id)


@router.post("/jobs/{id}/halt")
def halt(service: Asked, id: str, body: Wish) -> Job:
    """Call its pictures done as they are: those that are drawn now, or, with `stop`, the whole job."""
    return service.halt(id, body.wish)


@router.post("/jobs/{id}/retry", status_code=202)
def retry(service: Asked, client: Client, id: str) -> Job:
    """A new job with the request of an ended one: the same seed, and so the same pictures."""
    return service.retry(id, client=client)


@router.patch("/jobs/{id}")
def change(service: Asked, id: str, body: Change) -> Job:
    """Give a queued job another place."""
    if (body.priority is None) == (body.before is None):
        raise Problem(422, "request.change", "give a priority, or the job that it should come before; one of them")
    if body.priority is not None:
        return service.prioritise(id, body.priority)
    assert body.before is not None
    return service.move_before(id, body.before)


@router.delete("/jobs/{id}")
def forget(service: Asked, id: str) -> Job:
    """Remove an ended job from the history; its pictures stay."""
    return service.forget(id)


@router.get("/queue", response_model=Queue)
def queue(service: Asked) -> Response:
    """What runs, and what waits, in the order in which it will run."""
    running, queued = service.queue()
    # written at once: FastAPI would check each of the jobs again, and write it as a dictionary first
    return Response(Queue(running=running, queued=queued).model_dump_json(), media_type="application/json")


@router.post("/queue/clear")
def clear(service: Asked) -> Cleared:
    """Cancel all that waits."""
    return Cleared(cancelled=service.clear())
