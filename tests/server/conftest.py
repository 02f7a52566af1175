"""A server with the stub for a worker, in this process, and a client that calls it as a browser would."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers import ADDRESS
from starlette.testclient import TestClient

from sfumato.server.app import make_app
from sfumato.server.service import Service
from sfumato.server.settings import Limits, Settings

STUB = (sys.executable, str(Path(__file__).with_name("stub.py")))
FAST = Limits(rate=10_000.0, burst=10_000, queue=2000, client_queue=2000, kill=0.6, stop=5.0, reserve=2**20)

Start = Callable[..., TestClient]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", program=STUB, limits=FAST)


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Start a server, with other settings where they are given; stopped in the end."""
    yield from starting(settings)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of one server for all tests of a file that do not mind each other."""
    starts = starting(Settings(data=tmp_path_factory.mktemp("shared") / "data", program=STUB, limits=FAST))
    yield next(starts)()
    next(starts, None)


def starting(settings: Settings) -> Iterator[Start]:
    clients: list[TestClient] = []

    def start_one(**changes: object) -> TestClient:
        service = Service(replace(settings, **changes))  # type: ignore[arg-type]  # the test says what fits
        client = TestClient(make_app(service), base_url=ADDRESS, raise_server_exceptions=False)
        client.service = service  # type: ignore[attr-defined]  # for tests that look inside
        client.__enter__()
        clients.append(client)
        return client

    yield start_one
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start: Start) -> TestClient:
    return start()


@pytest.fixture
def service(client: TestClient) -> Service:
    found = client.service  # type: ignore[attr-defined]
    assert isinstance(found, Service)
    return found
