"""The thread that keeps the worker busy outlives whatever one job meets."""

import errno
import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from sfumato.server.service import Service

API = "/sfumato/v1"


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError(errno.ENOSPC, "No space left on device"), 1), (PermissionError(errno.EACCES, "no"), 2), (KeyError(), 2)],
)
def test_a_picture_that_cannot_be_put_into_its_place_is_tried_again(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    publish, met = service.folders.publish, [error]

    def meets(*given: Any) -> str:
        if met:
            raise met.pop()
        return publish(*given)

    monkeypatch.setattr(service.folders, "publish", meets)
    first = client.post(f"{API}/jobs", json={"request": {"prompt": "x"}}).json()["id"]
    second = client.post(f"{API}/jobs", json={"request": {"prompt": "y"}}).json()["id"]
    deadline = time.monotonic() + 30
    while not service.job(first).over or not service.job(second).over:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (service.job(first).state, service.job(first).attempt) == ("done", attempts)
    assert service.job(second).state == "done"


def test_the_thread_outlives_a_claim_that_fails(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, met = service.runner._claim, [ValueError("of the database")]

    def meets() -> Any:
        if met:
            raise met.pop()
        return claim()

    monkeypatch.setattr(service.runner, "_claim", meets)
    id = client.post(f"{API}/jobs", json={"request": {"prompt": "x"}}).json()["id"]
    deadline = time.monotonic() + 30
    while service.job(id).state != "done":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not met


def test_a_worker_that_does_not_start_is_not_asked_in_a_hurry(start: Any) -> None:
    service: Service = start(program=("/bin/false",)).service
    service.runner.wake()
    time.sleep(0.8)
    assert service.runner.restarts <= 3
    began = time.monotonic()
    service.runner.stop(0.0)
    assert service.runner.join(5.0) and time.monotonic() - began < 1.0
