"""OpenAI's streams: partial images while a job runs, then each picture as it is done."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from sfumato.server.broker import STILL_HERE
from sfumato.server.dialects.encoded import decode_picture
from sfumato.server.dialects.openai_answers import (
    as_format,
    completed_event,
    error_event,
    partial_event,
    preview_as_format,
)
from sfumato.server.dialects.openai_lowering import Endpoint, Order
from sfumato.server.problems import Problem, check_drawn
from sfumato.server.service import Service
from sfumato.server.values import Job


async def stream(
    service: Service, job: Job, order: Order, endpoint: Endpoint, text_tokens: int
) -> AsyncIterator[bytes]:
    """The events of a job: at most `partial_images` partial ones, spread over the steps, and each finished picture.

    A job that is done before so many previews were made has fewer, as OpenAI's own.
    """
    subscriber = service.broker.subscribe(job=job.id)
    partials = Partials(order, endpoint)
    sent: set[str] = set()
    try:
        told = None
        listening = subscriber.events()
        while True:
            if told is None or told.kind in ("picture", "job"):
                job = await asyncio.to_thread(service.job, job.id)
            elif told.kind == "preview":
                for event in await asyncio.to_thread(partials.of, json.loads(told.data), job):
                    yield event
            for picture in job.pictures:
                if picture.id not in sent:
                    sent.add(picture.id)
                    file = as_format(await asyncio.to_thread(service.picture_bytes, picture.id), order)
                    yield completed_event(endpoint, file, order, job, text_tokens)
            if job.over:
                break
            told = await anext(listening, None)
            if told is None and subscriber.closed:
                break
            if told is None:
                yield STILL_HERE
    finally:
        service.broker.leave(subscriber)
    try:
        check_drawn(job)
    except Problem as problem:
        yield error_event(problem)


class Partials:
    """Chooses among the previews of a job those that are sent: about evenly spread over its steps."""

    def __init__(self, order: Order, endpoint: Endpoint) -> None:
        self._order, self._endpoint, self._sent = order, endpoint, 0

    def of(self, preview: dict[str, Any], job: Job) -> list[bytes]:
        """The event that a preview is worth, or none."""
        wanted = self._order.partial_images
        if self._sent >= wanted or preview["step"] < preview["steps"] * (self._sent + 1) / (wanted + 1):
            return []
        size = (int(job.request["width"]), int(job.request["height"]))
        made = preview_as_format(decode_picture("preview", preview["image"]), self._order, size)
        self._sent += 1
        return [partial_event(self._endpoint, made, self._order, job, self._sent - 1)]
