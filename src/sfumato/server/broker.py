"""Who is told what: a bounded log of events for those who come back, and one bounded queue for each who listens."""

import asyncio
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

KEPT = frozenset({"job", "picture", "deleted", "models"})  # what a log is for; progress and previews are of the moment

SILENCE = 15.0  # seconds, after which a comment shows that the connection lives
STILL_HERE = b": still here\n\n"  # that comment


@dataclass(frozen=True)
class Told:
    """One event: its number, its kind, the job that it is of, and its data as JSON."""

    id: int
    kind: str
    job: str | None
    data: str

    def encoded(self) -> bytes:
        """The event as server-sent events have it."""
        return f"id: {self.id}\nevent: {self.kind}\ndata: {self.data}\n\n".encode()


class Subscriber:
    """One who listens. What is of the moment replaces what was not taken yet; who falls behind is let go."""

    def __init__(self, loop: asyncio.AbstractEventLoop, job: str | None, backlog: int) -> None:
        self.job = job
        self._loop, self._backlog = loop, backlog
        self._waiting: deque[Told] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self.closed = False

    def offer(self, told: Told) -> None:
        """Put an event into the queue; called in the loop."""
        if self.closed or (self.job is not None and told.job != self.job):
            return
        if told.kind not in KEPT:
            stale = [each for each in self._waiting if each.kind == told.kind and each.job == told.job]
            for each in stale:
                self._waiting.remove(each)
                self._bytes -= len(each.data)
        self._waiting.append(told)
        self._bytes += len(told.data)
        if self._bytes > self._backlog:
            self.close()
        self._more.set()

    def close(self) -> None:
        """Let it go: its stream ends, and it may come back with the number of its last event."""
        self.closed = True
        self._waiting.clear()
        self._more.set()

    def post(self, told: Told | None) -> None:
        """Offer an event from any thread; None closes."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            if told is None:
                self._loop.call_soon_threadsafe(self.close)
            else:
                self._loop.call_soon_threadsafe(self.offer, told)

    async def events(self, silence: float = SILENCE) -> AsyncIterator[Told | None]:
        """The events as they come; None after so many seconds without one."""
        while not self.closed or self._waiting:
            if not self._waiting:
                self._more.clear()
                try:
                    await asyncio.wait_for(self._more.wait(), silence)
                except TimeoutError:
                    yield None
                continue
            told = self._waiting.popleft()
            self._bytes -= len(told.data)
            yield told

    async def news(self, kind: str, seconds: float) -> bool:
        """Wait for an event of a kind, and pass over all others; has it come in time?"""
        deadline = time.monotonic() + seconds
        while not self.closed:
            while self._waiting:
                told = self._waiting.popleft()
                self._bytes -= len(told.data)
                if told.kind == kind:
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._more.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), left)
        return False


class Broker:
    """Numbers events and hands them out. Numbers rise over restarts too, so that a gap is noticed."""

    def __init__(self, kept: int, backlog: int) -> None:
        self._lock = threading.Lock()
        self._log: deque[Told] = deque(maxlen=kept)
        self._next = int(time.time() * 1000) * 1000  # below 2^53 until the year 2255
        self._first = self._next
        self._backlog = backlog
        self._listeners: set[Subscriber] = set()
        self._open = True

    def publish(self, kind: str, data: Mapping[str, Any], job: str | None = None) -> None:
        """Tell everybody who listens; may be called from any thread."""
        text = json.dumps(data, allow_nan=False)
        with self._lock:
            told = Told(self._next, kind, job, text)
            self._next += 1
            if kind in KEPT:
                self._log.append(told)
            self._listeners = {each for each in self._listeners if not each.closed}  # who fell behind costs no more
            for each in self._listeners:
                each.post(told)

    def subscribe(self, after: int | None = None, job: str | None = None) -> Subscriber:
        """Listen from now on, or from the event after a number; called in the loop that will listen.

        If events after that number are not kept any more, the first one is `reset`: look at everything anew.
        """
        subscriber = Subscriber(asyncio.get_running_loop(), job, self._backlog)
        with self._lock:
            if after is not None:
                oldest = self._log[0].id if len(self._log) == self._log.maxlen else self._first
                if after < oldest - 1 or after >= self._next:
                    subscriber.offer(Told(self._next - 1, "reset", job, "{}"))
                else:
                    for told in self._log:
                        if told.id > after:
                            subscriber.offer(told)
            if self._open:
                self._listeners.add(subscriber)
            else:
                subscriber.close()
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Stop listening."""
        with self._lock:
            self._listeners.discard(subscriber)

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            self._open = False
            for each in self._listeners:
                each.post(None)
            self._listeners.clear()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)
