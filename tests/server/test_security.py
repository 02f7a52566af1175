"""What the server refuses: strangers' hosts, other sites' pages, missing tokens, too much, and places on the disk."""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from servers import Running
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from sfumato.cli.app import run
from sfumato.server import guard
from sfumato.server.problems import plain
from sfumato.server.run import check
from sfumato.server.settings import Limits, Settings

API = "/sfumato/v1"
TOKEN = "a token of thirty-two characters"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("security") / "data", hosts=["studio.example", "studio.example:8443"])
    yield running
    assert running.stop() == 0


@pytest.fixture
def locked(start: Any) -> TestClient:
    client: TestClient = start(token=TOKEN)
    return client


def raw(server: Running, text: bytes, seconds: float = 5.0) -> bytes:
    """What comes back for these bytes."""
    port = int(server.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(text)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
                if b"\r\n\r\n" in answer and b"chunked" not in answer:
                    break
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


# --- hosts and origins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_for_others_needs_a_token(host: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["serve", "--host", host, "--port", "0", "--data", str(tmp_path / "data")]) == 2
    assert "--token" in capsys.readouterr().err
    assert run(["serve", "--host", host, "--token", "short", "--data", str(tmp_path / "data")]) == 2
    assert not (tmp_path / "data").exists()
    check(Settings(host=host, token=TOKEN))


def forged(port: int) -> list[bytes]:
    """Hosts that are not this server's, or not to the letter."""
    names = ["evil.com", "localhost.evil.com", "evil-localhost", "127.0.0.1.evil.com", "127.0.0.2", "0.0.0.0", "[::]"]
    names += ["localhost.", "127.0.0.1.", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "user@127.0.0.1", "::1", ""]
    names += [
        "127.0.0.1, evil.com",
        "127.0.0.1 evil.com",
        "evil.com#localhost",
        "localhost\tx",
        "lоcalhost",
        "%6cocalhost",
    ]
    forms = [f"{name}:{port}" for name in names] + names
    forms += [
        f"{name}:{other}" for name in ("127.0.0.1", "localhost") for other in (80, port + 1, f"0{port}", f"{port} ")
    ]
    forms += ["127.0.0.1", "localhost", "[::1]", "studio.example", "studio.example:1", "xstudio.example:8443"]
    return [
        form.encode() for form in forms if form.strip() != f"127.0.0.1:{port}" and form.strip() != f"localhost:{port}"
    ]


def test_a_host_is_ours_to_the_letter_or_refused(server: Running) -> None:
    port = int(server.address.rpartition(":")[2])
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", "studio.example:8443", f"[::1]:{port}"):
        assert status(raw(server, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == 200, host
    for host in forged(port):
        for origin in (b"", b"Origin: http://" + host + b"\r\n"):
            answer = raw(server, b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n" + origin + b"\r\n")
            assert status(answer) in (0, 400, 421), (host, answer[:200])
    twice = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.com\r\n\r\n".encode()
    assert status(raw(server, twice)) in (400, 421)
    assert status(raw(server, b"GET /health HTTP/1.0\r\n\r\n")) in (400, 421)


BODY = json.dumps({"request": {"prompt": "x"}})
FOREIGN: list[dict[str, str]] = [
    *(
        {"origin": origin}
        for origin in ("http://evil.com", "null", "https://127.0.0.1", "http://127.0.0.1:1", "file://")
    ),
    *(
        {"origin": origin}
        for origin in ("http://localhost.evil.com:7860", "http://127.0.0.1:7860@evil.com", "", "http:foo", "http://[")
    ),
    *({"sec-fetch-site": site} for site in ("cross-site", "same-site", "unheard-of")),
    {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "cross-site"},
    {"content-type": "text/plain"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data; boundary=x"},
    {"content-type": "TEXT/PLAIN;charset=utf-8"},
]


@pytest.mark.parametrize("place", ["/jobs", "/queue/clear", "/uploads", "/session", "/jobs/x/cancel"])
def test_another_sites_page_changes_nothing(shared: TestClient, place: str) -> None:
    for headers in FOREIGN:
        answer = shared.post(f"{API}{place}", content=BODY, headers={"content-type": "application/json"} | headers)
        assert answer.status_code in (403, 415), (headers, answer.text)
        assert "access-control-allow-origin" not in answer.headers
    for method in ("PATCH", "DELETE", "PUT"):
        assert shared.request(method, f"{API}{place}", headers={"origin": "null"}).status_code == 403
    assert shared.get(f"{API}/jobs").json()["jobs"] == []


def test_our_own_page_and_programs_may(shared: TestClient) -> None:
    for headers in (
        {},
        {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:7860"},
        {"sec-fetch-site": "none"},
    ):
        assert shared.post(f"{API}/queue/clear", headers=headers).status_code == 200, headers


def test_reading_changes_nothing(shared: TestClient) -> None:
    """No route that is asked with GET does anything: they are all named here."""
    document = shared.get("/openapi.json").json()
    gets = {path for path, methods in document["paths"].items() if "get" in methods}
    before = shared.get(f"{API}/system").json()["queue"]
    for path in gets - {f"{API}/events"}:
        shared.get(path.replace("{id}", "x").replace("{name}", "x"))
    assert shared.get(f"{API}/system").json()["queue"] == before


# --- tokens -------------------------------------------------------------------------------------------------------


def routes(api: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path of the application."""

    def walk(found: list[BaseRoute], prefix: str) -> Iterator[tuple[str, str]]:
        for route in found:
            if isinstance(route, Mount):
                yield from walk(list(route.routes), prefix + route.path)
            elif isinstance(route, Route | APIRoute):
                yield from ((method, prefix + route.path) for method in route.methods or ())

    yield from walk(list(api.routes), "")


def test_every_route_asks_for_the_token_but_four(locked: TestClient) -> None:
    api = locked.app._app  # type: ignore[attr-defined]  # the guard's inside
    document = api.openapi()
    known = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    known |= {(method, path) for method, path in routes(api)}
    assert len(known) > 40
    opened = set()
    for method, path in sorted(known):
        place = path.replace("{id}", "x").replace("{name:path}", "x").replace("{name}", "x") or "/"
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic OndyB25n"},
            {"cookie": "sfumato_session=x"},
        ):
            answer = locked.request(method, place, headers=headers)
            if answer.status_code != 401:
                opened.add(path)
    page = {path for path in opened if path.startswith(guard.PAGE) or path == "/"}
    assert opened - page == {"/health", "/metrics", f"{API}/session"}  # and the page itself
    assert len(guard.PUBLIC) <= 4


def test_the_token_opens_as_bearer_password_and_cookie(locked: TestClient) -> None:
    place = f"{API}/jobs"
    assert locked.get(place, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert locked.get(place, auth=("anybody", TOKEN)).status_code == 200
    assert locked.get(f"{place}?token={TOKEN}").status_code == 401
    assert locked.post(f"{API}/session", json={"token": "wrong"}).status_code == 401
    assert locked.get(place).status_code == 401
    made = locked.post(f"{API}/session", json={"token": TOKEN})
    cookie = made.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in cookie
    assert locked.get(place).status_code == 200


# --- too much -----------------------------------------------------------------------------------------------------


def test_bodies_are_measured_as_they_come(start: Any) -> None:
    client = start(limits=Limits(body=2000, upload=5000, json_upload=9000, reserve=0))

    def endless(most: int) -> Iterator[bytes]:
        for _ in range(most // 100 + 5):
            yield b"x" * 100

    for place, most in (
        (f"{API}/jobs", 2000),
        (f"{API}/uploads", 5000),
        (f"{API}/read", 5000),
        ("/sdapi/v1/txt2img", 9000),
    ):
        assert client.post(place, content=b"x" * (most + 1)).status_code == 413
        assert client.post(place, content=endless(most)).status_code in (404, 405, 413)
    assert (
        client.post(
            f"{API}/jobs", content=b'{"request":' * 400, headers={"content-type": "application/json"}
        ).status_code
        == 413
    )
    deep = b'{"request":' + b"[" * 900 + b"]" * 900 + b"}"
    assert client.post(f"{API}/jobs", content=deep, headers={"content-type": "application/json"}).status_code == 422


def test_a_compressed_body_is_not_unpacked(shared: TestClient) -> None:
    import gzip

    packed = gzip.compress(b'{"request": {}}' + b" " * 10_000_000)
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    assert shared.post(f"{API}/jobs", content=packed, headers=headers).status_code in (400, 415, 422)


def test_a_form_of_many_parts_is_refused(shared: TestClient) -> None:
    parts = {f"f{number}": (None, "x") for number in range(2000)}
    answer = shared.post(f"{API}/uploads", files=parts, headers={"x-requested-by": "test"})
    assert answer.status_code in (400, 413, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_headers_without_end_and_slow_requests_do_not_stop_others(server: Running) -> None:
    port = int(server.address.rpartition(":")[2])
    head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    assert status(raw(server, head + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n")) in (0, 400, 431)
    assert status(raw(server, head + b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"\r\n")) in (0, 400, 431)
    before = server.http.get("/system").json()["memory"]["server"]
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(
                b"POST /sfumato/v1/uploads HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 999\r\n" % port
            )
        slowest = 0.0
        for _ in range(20):
            started = time.monotonic()
            assert server.http.get(f"{server.address}/health").status_code == 200
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 2.0  # half a second on a machine of one's own
        assert server.http.get("/system").json()["memory"]["server"] - before < 64 * 2**20
    finally:
        for connection in slow:
            connection.close()


def test_too_many_posts_and_jobs_are_refused_with_a_time_to_come_back(start: Any) -> None:
    client = start(limits=Limits(rate=0.001, burst=4, queue=256, client_queue=2, reserve=0))
    answers = [client.post(f"{API}/jobs", json={"request": {"prompt": "slow", "steps": 1000}}) for _ in range(6)]
    assert [answer.status_code for answer in answers][-2:] == [429, 429]
    assert all(answer.status_code in (202, 429) for answer in answers)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    made = client.get(f"{API}/system").json()["queue"]
    assert made["queued"] + made["running"] == sum(answer.status_code == 202 for answer in answers)


# --- the disk -----------------------------------------------------------------------------------------------------

CANARY = "the canary sings"
OUTSIDE = r"""
../canary ../../canary ../../../../../../../../canary /canary //canary file:///canary ..%2fcanary %2e%2e/canary
..%252fcanary ....//canary ..\canary ..%5ccanary %2e%2e%2fcanary .%00/canary canary%00.png ~/canary $HOME/canary
C:\canary \\host\canary ..;/canary ./../canary ＃../canary ．．/canary
"""


def test_no_text_of_a_client_opens_a_file_outside(start: Any, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text(CANARY)
    (tmp_path / "canary.safetensors").write_text(CANARY)
    client = start()
    opened: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | bytes):
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    places = [*OUTSIDE.split(), str(tmp_path / "canary"), str(tmp_path / "canary.safetensors")]
    bodies = []
    for text in places:
        for route in (
            "pictures/{}",
            "pictures/{}/file",
            "pictures/{}/thumbnail",
            "uploads/{}/file",
            "jobs/{}",
            "models/{}",
        ):
            bodies.append(client.get(f"{API}/{route.format(text)}"))
        for route in ("assets/{}", "{}", "sfumato/v1/../{}"):
            bodies.append(client.get(f"/{route.format(text)}"))
        for request in (
            *({field: text} for field in ("model", "vae", "image", "mask", "sampler", "spacing", "noise")),
            {"loras": [text]},
            {"embeddings": [[text, "w"]]},
            {"hires": {"upscaler": text}},
            {"controls": [{"model": text}]},
            {"image": f"sha256:{text}"},
        ):
            answer = client.post(f"{API}/jobs", json={"request": request})
            assert answer.status_code == 422, (request, answer.text)
            bodies.append(answer)
        bodies.append(client.post(f"{API}/tokens", json={"prompt": text, "model": text}))
    watching.clear()
    assert not any("canary" in path for path in opened)
    for answer in bodies:
        assert CANARY not in answer.text
        assert str(tmp_path / "data") not in answer.text


def test_paths_in_messages_lose_their_folders() -> None:
    assert plain("/home/me/models/x.safetensors: cannot be read") == "x.safetensors: cannot be read"
    assert plain("no model at /srv/a b.bin; see C:\\Users\\me\\m.ckpt") == "no model at a b.bin; see m.ckpt"
    assert plain("https://example.org/a/b and 1/2 and a/b") == "https://example.org/a/b and 1/2 and a/b"


def test_an_unexpected_failure_says_nothing_of_the_inside(shared: TestClient) -> None:
    id = shared.post(f"{API}/jobs", json={"request": {"prompt": "broken"}}).json()["id"]
    deadline = time.monotonic() + 20
    while (job := shared.get(f"{API}/jobs/{id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
    assert job["error"]["code"] == "internal"
    assert "secret" not in json.dumps(job) and "Traceback" not in json.dumps(job)


# --- what a browser is told ---------------------------------------------------------------------------------------

SCRIPTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "<svg onload=alert(1)>",
)


def test_words_of_strangers_come_back_as_data_only(shared: TestClient) -> None:
    for text in SCRIPTS:
        job = shared.post(f"{API}/jobs", json={"request": {"prompt": text}, "title": text})
        assert job.headers["content-type"] == "application/json"
        wrong = shared.get(f"{API}/jobs", params={"state": text})
        assert wrong.headers["content-type"] == "application/problem+json"
        assert shared.get(f"{API}/models/{text}").headers["content-type"] == "application/problem+json"
    for answer in (job, wrong, shared.get("/"), shared.get("/docs"), shared.get("/nothing/here")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src" in policy and "frame-ancestors 'none'" in policy


def test_media_may_do_nothing_in_a_browser(shared: TestClient) -> None:
    done = shared.post(f"{API}/jobs", json={"request": {"prompt": SCRIPTS[0], "width": 16, "height": 16}}).json()
    deadline = time.monotonic() + 20
    while not (job := shared.get(f"{API}/jobs/{done['id']}").json())["pictures"]:
        assert time.monotonic() < deadline
    picture = job["pictures"][0]
    for place in (
        picture["file"],
        picture["thumbnail"],
        f"{picture['file']}?format=webp",
        f"{API}/uploads/{picture['sha256']}/file",
    ):
        answer = shared.get(place)
        assert answer.headers["content-type"].split("/")[0] == "image"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
