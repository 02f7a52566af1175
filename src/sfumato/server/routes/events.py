"""What happens, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from sfumato.server.broker import STILL_HERE, Broker, Subscriber
from sfumato.server.routes.parts import PROBLEMS, Asked, Responses

router = APIRouter(tags=["events"], responses=PROBLEMS)

STREAM: Responses = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events, for ever."}
}

After = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=20, pattern=r"^[0-9]+$", description="Events after this one."),
]
AfterQuery = Annotated[str | None, Query(max_length=20, pattern=r"^[0-9]+$", description="The same, for a first look.")]


@router.get("/events", response_class=StreamingResponse, responses=STREAM)
async def events(service: Asked, last: After = None, after: AfterQuery = None) -> StreamingResponse:
    """All events: job, progress, preview, picture, deleted, models; and reset, when some were missed."""
    return stream(service.broker, last or after, None)


@router.get("/jobs/{id}/events", response_class=StreamingResponse, responses=STREAM)
async def events_of(service: Asked, id: str, last: After = None, after: AfterQuery = None) -> StreamingResponse:
    """The events of one job."""
    await run_in_threadpool(service.job, id)
    return stream(service.broker, last or after, id)


def stream(broker: Broker, after: str | None, job: str | None) -> StreamingResponse:
    """An answer that does not end before the listener does."""
    subscriber = broker.subscribe(None if after is None else int(after), job)
    return StreamingResponse(
        told(broker, subscriber),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def told(broker: Broker, subscriber: Subscriber) -> AsyncIterator[bytes]:
    """The bytes of a stream of events."""
    try:
        yield b"retry: 2000\n\n"
        async for each in subscriber.events():
            yield STILL_HERE if each is None else each.encoded()
    finally:
        broker.leave(subscriber)
