"""A client that hangs up while its job runs. The application is asked directly: a test client does not hang up."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.testclient import TestClient


def state_after_hanging_up(client: TestClient, path: str, body: dict[str, Any]) -> str:
    """How the job that a post makes ends, when its client is gone after a second."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1:7860"), (b"content-type", b"application/json")],
        "server": ("127.0.0.1", 7860), "client": ("127.0.0.1", 5), "app": None, "state": {},
    }  # fmt: skip

    async def hang_up() -> None:
        until = time.monotonic() + 1.0
        sent = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if sent:
                return sent.pop()
            if time.monotonic() < until:
                await asyncio.sleep(until - time.monotonic())
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            return

        await asyncio.wait_for(client.app(scope, receive, send), 60)

    with ThreadPoolExecutor(1) as apart:  # from a browser's loop, which may run in this thread
        apart.submit(asyncio.run, hang_up()).result()
    deadline = time.monotonic() + 60
    while (job := client.service.jobs(limit=1)[0][0]).state in ("queued", "running"):  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(job.state)
