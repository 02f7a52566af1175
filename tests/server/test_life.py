"""How the server lives: events, cancels, stops, a full disk, a long history, many clients."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from chaos import inspect
from servers import Running, Share
from stub import pixels

from sfumato.server.broker import Broker
from sfumato.server.service import Service
from sfumato.server.settings import Settings

LOADED = 4.0  # how much longer something may take on a machine that others use, too


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("life") / "data", limits={"kill": 0.5})
    yield running
    assert running.stop() == 0


def submit(server: Running, prompt: str, **request: Any) -> str:
    answer = server.http.post("/jobs", json={"request": {"prompt": prompt, **request}})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def until(server: Running, id: str, *states: str, seconds: float = 40.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while (job := server.http.get(f"/jobs/{id}").json())["state"] not in states:
        assert time.monotonic() < deadline, job["state"]
        time.sleep(0.02)
    return job  # type: ignore[no-any-return]  # JSON


def listen(
    server: Running, place: str = "/events", last: int | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with server.http.stream("GET", place, headers=headers) as answer:
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}
            elif "retry" in fields:
                yield 0, "listening", {}
                fields = {}


def test_events_tell_of_a_job_and_are_told_again_to_those_who_come_back(server: Running) -> None:
    stream = listen(server)
    assert next(stream)[1] == "listening"
    id = submit(server, "a slow house", steps=20)
    told = []
    for number, kind, data in stream:
        told.append((number, kind, data))
        if kind == "job" and data["state"] == "done":
            break
    kinds = [kind for _, kind, _ in told]
    assert [data["state"] for _, kind, data in told if kind == "job"] == ["queued", "running", "done"]
    assert kinds.index("progress") < kinds.index("preview") < kinds.index("picture") < len(kinds) - 1
    assert [number for number, _, _ in told] == sorted({number for number, _, _ in told})
    steps = [data["step"] for _, kind, data in told if kind == "progress"]
    assert steps == sorted(steps) and steps[-1] == 20
    assert sum(kind == "preview" for kind in kinds) <= 3 * (20 * 0.05 * LOADED) + 1  # three a second
    first = next(number for number, kind, _ in told if kind == "job")
    again = listen(server, f"/jobs/{id}/events", last=first)
    assert next(again)[1] == "listening"
    replayed = [next(again)[1:] for _ in range(3)]
    assert [kind for kind, _ in replayed] == ["job", "picture", "job"]
    long_ago = listen(server, last=5)
    assert [next(long_ago)[1] for _ in range(2)] == ["listening", "reset"]


def test_who_reads_slowly_is_let_go_and_sees_the_newest_preview() -> None:
    import asyncio

    async def run() -> None:
        broker = Broker(kept=10, backlog=2000)
        quick, slow = broker.subscribe(), broker.subscribe()
        for number in range(50):
            broker.publish("preview", {"step": number, "image": "x" * 100}, "job")
        await asyncio.sleep(0.05)
        assert [json.loads(told.data)["step"] for told in quick._waiting] == [49]
        for number in range(50):
            broker.publish("job", {"n": number, "more": "x" * 100}, "job")
        await asyncio.sleep(0.05)
        assert slow.closed and not slow._waiting
        last = broker._next - 5
        back = broker.subscribe(after=last)
        events = back.events(0.01)
        assert [(await anext(events)).id for _ in range(4)] == list(range(last + 1, last + 5))  # type: ignore[union-attr]

    with ThreadPoolExecutor(1) as apart:  # from a browser's loop, which may run in this thread
        apart.submit(asyncio.run, run()).result()


def test_a_cancel_takes_effect_within_a_step(server: Running) -> None:
    id = submit(server, "a slow house", steps=1000)
    waiting = submit(server, "another")
    assert server.http.post(f"/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    until(server, id, "running")
    time.sleep(0.3)
    before = server.worker()
    started = time.monotonic()
    assert server.http.post(f"/jobs/{id}/cancel").json()["cancelling"]
    until(server, id, "cancelled")
    assert time.monotonic() - started < (0.05 + 0.25) * LOADED
    assert server.worker() == before


def test_a_worker_that_does_not_heed_a_cancel_is_replaced(server: Running) -> None:
    id = submit(server, "a deaf house")
    until(server, id, "running")
    time.sleep(0.2)
    before = server.worker()
    server.http.post(f"/jobs/{id}/cancel")
    until(server, id, "cancelled", seconds=10)
    assert until(server, submit(server, "the next"), "done")["state"] == "done"
    assert server.worker() != before


@pytest.mark.parametrize(
    ("prompt", "code"), [("full", "disk.full"), ("memory", "out_of_memory"), ("broken", "internal")]
)
def test_a_failure_is_told_and_the_next_job_works(server: Running, prompt: str, code: str) -> None:
    job = until(server, submit(server, prompt), "failed")
    assert (job["error"]["code"], job["attempt"]) == (code, 1)
    assert until(server, submit(server, "the next"), "done")["pictures"]


def test_many_clients_have_their_own_pictures_while_the_server_answers(server: Running) -> None:
    crowd(server, clients=8, jobs=3, patience=0.2 * LOADED)


@pytest.mark.slow
def test_sixty_four_clients_have_their_own_pictures_while_the_server_answers(tmp_path: Path) -> None:
    server = Running(tmp_path / "data")
    crowd(server, clients=64, jobs=20, patience=0.2)
    assert server.stop() == 0


def crowd(server: Running, clients: int, jobs: int, patience: float) -> None:
    def one(name: int) -> int:
        headers = {"X-Sfumato-Client": f"c{name}"}
        with httpx2.Client(base_url=f"{server.address}/sfumato/v1", headers=headers, timeout=60) as http:
            request = {"seed": name, "width": 16, "height": 16, "steps": 1}
            ids = [
                http.post("/jobs", json={"request": {"prompt": f"{name} {n}", **request}}).json()["id"]
                for n in range(jobs)
            ]
            right = 0
            for number, id in enumerate(ids):
                while (job := http.get(f"/jobs/{id}").json())["state"] != "done":
                    assert job["state"] in ("queued", "running")
                    time.sleep(0.2)
                import hashlib

                wanted = hashlib.sha256(pixels(f"{name} {number}", name, 16, 16)).hexdigest()
                right += job["pictures"][0]["sha256"] == f"sha256:{wanted}" and job["client"] == f"c{name}"
            return right

    share = Share(server.process.pid)
    command = [sys.executable, str(Path(__file__).with_name("watch.py")), server.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        with ThreadPoolExecutor(clients) as pool:
            assert sum(pool.map(one, range(clients))) == clients * jobs
        delays = json.loads(watcher.communicate()[0])
    slower = share.slower()
    slowest = sorted(delays)[int(len(delays) * 0.99) - 1]
    print(f"/health p99 {slowest * 1000:.0f} ms while {clients} clients submitted {jobs} jobs each", end=" ")
    print(f"(by others {slower:.1f} times slower)")
    assert slowest < patience * slower


# --- stopping -----------------------------------------------------------------------------------------------------


def test_asked_to_stop_it_takes_nothing_more_and_lets_the_running_job_end(tmp_path: Path) -> None:
    server = Running(tmp_path / "data")
    id = submit(server, "a slow house", steps=40)
    until(server, id, "running")
    waits = submit(server, "this one waits")
    os.kill(server.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 2
    while (refused := server.http.post("/jobs", json={"request": {"prompt": "late"}})).status_code != 503:
        assert time.monotonic() < deadline
    assert int(refused.headers["retry-after"]) > 0
    assert server.process.wait(30) == 0
    server._reap()
    assert inspect(tmp_path / "data", {id, waits}, ended=False) == {id: "done", waits: "queued"}
    again = Running(tmp_path / "data")
    assert until(again, waits, "done")["attempt"] == 1
    assert again.stop() == 0


def test_what_does_not_end_in_time_goes_back_uncounted(tmp_path: Path) -> None:
    server = Running(tmp_path / "data", limits={"stop": 0.3})
    id = submit(server, "a slow house", steps=1000)
    until(server, id, "running")
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 2.0 * LOADED
    connection = sqlite3.connect(tmp_path / "data" / "sfumato.sqlite")
    assert connection.execute("SELECT state, attempt, tries FROM jobs").fetchall() == [("queued", 1, 0)]
    connection.close()


def test_a_second_signal_ends_it_now(tmp_path: Path) -> None:
    server = Running(tmp_path / "data")
    id = submit(server, "a slow house", steps=1000)
    until(server, id, "running")
    os.kill(server.process.pid, signal.SIGTERM)
    time.sleep(0.3)
    started = time.monotonic()
    assert server.stop(signal.SIGINT) == 0
    assert time.monotonic() - started < 2.0 * LOADED


def test_a_worker_ends_with_its_server(tmp_path: Path) -> None:
    server = Running(tmp_path / "data")
    until(server, submit(server, "x"), "done")
    worker = server.worker()
    assert worker is not None
    server.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- a full disk, a long history ----------------------------------------------------------------------------------


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="a file system of one's own needs user namespaces")
def test_a_full_disk_stops_nothing_for_good(tmp_path: Path) -> None:
    fill_up(tmp_path, [0])


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="a file system of one's own needs user namespaces")
def test_a_disk_that_is_full_at_any_moment_stops_nothing_for_good(tmp_path: Path) -> None:
    fill_up(tmp_path, [kilobytes for kilobytes in range(0, 640, 10)])


@contextlib.contextmanager
def small_disk(tmp_path: Path, **limits: int) -> Iterator[tuple[Running, Path]]:
    """A server in a file system of 64 MiB, and that from outside."""
    data = tmp_path / "data"
    data.mkdir()
    launch = (
        f'mount -t tmpfs -o size=64m tmpfs {data} && exec {sys.executable} {Path(__file__).with_name("launch.py")} "$0"'
    )
    settings = json.dumps({"data": str(data / "server"), "limits": {"reserve": 0, **limits}})
    command = ["unshare", "-rm", "sh", "-c", launch, settings]  # each becomes the next: one process
    server = Running.__new__(Running)
    server.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.process.stdout is not None
    server.address = server.process.stdout.readline().strip()
    server.http = httpx2.Client(base_url=f"{server.address}/sfumato/v1", timeout=30)
    inside = Path(f"/proc/{server.process.pid}/root{data}")
    try:
        assert shutil.disk_usage(inside).total == 64 * 2**20  # and not the disk of this machine
        yield server, inside
    finally:
        server.process.terminate()
        server._reap()


def fill(inside: Path, budget: int) -> None:
    """Leave so many KiB."""
    free = shutil.disk_usage(inside).free
    with contextlib.suppress(OSError), open(inside / "filler", "wb") as filler:
        filler.write(bytes(max(free - budget * 1024, 0)))
        filler.write(bytes(4096 * (budget == 0)))


def fill_up(tmp_path: Path, budgets: list[int]) -> None:
    """Leave so many KiB, ask for pictures and uploads; then make room again."""
    with small_disk(tmp_path, spare=0) as (server, inside):
        done = until(server, submit(server, "before", width=64, height=64), "done")
        for budget in budgets:
            fill(inside, budget)
            ids = []
            for number in range(3):
                answer = server.http.post(
                    "/jobs", json={"request": {"prompt": f"{budget} {number}", "width": 256, "height": 256}}
                )
                assert answer.status_code in (202, 507), answer.text
                ids += [answer.json()["id"]] if answer.status_code == 202 else []
            time.sleep(0.3)
            assert server.http.get(f"{server.address}/health").status_code == 200
            assert server.http.get(done["pictures"][0]["file"].removeprefix("/sfumato/v1")).status_code == 200
            (inside / "filler").unlink()
            started = time.monotonic()
            assert until(server, submit(server, "after"), "done")["pictures"]
            assert time.monotonic() - started < 5.0 * LOADED
            for id in ids:
                job = until(server, id, "done", "failed")
                assert job["state"] == "done" or job["error"]["code"] == "disk.full", job
        shutil.copytree(inside / "server", tmp_path / "copy")
        inspect(tmp_path / "copy", set())


@pytest.mark.skipif(not may_mount(), reason="a file system of one's own needs user namespaces")
def test_what_a_full_disk_ended_is_recorded_while_it_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path, spare=2**20) as (server, inside):
        id = submit(server, "a slow house", steps=20, width=256, height=256)
        until(server, id, "running")
        spare = inside / "server" / "spare"
        assert spare.stat().st_size == 2**20
        fill(inside, 0)
        job = until(server, id, "failed")
        assert job["error"]["code"] == "disk.full"
        assert not spare.exists() and (inside / "filler").exists()
        (inside / "filler").unlink()
        assert until(server, submit(server, "after"), "done")["pictures"]
        deadline = time.monotonic() + 5.0 * LOADED
        while not spare.exists():  # it is kept again once there is room for twice as much
            assert time.monotonic() < deadline
            time.sleep(0.05)


JOB_ROW = """
    INSERT INTO jobs (id, kind, state, title, api, client, priority, place, request, work, search, created, ended)
    VALUES (?, 'draw', 'done', 'a red house', 'native', 'c', 0, ?, '{}', '{}', 'a red house', 1.0, 2.0)"""
PICTURE_ROW = """
    INSERT INTO pictures (id, job, place, sha256, width, height, seed, prompt, search, created, file, record)
    VALUES (?, ?, 0, ?, 1, 1, '1', 'p', 'p', 1.0, ?, '{}')"""


def test_ten_thousand_jobs_of_history_do_not_delay_a_start(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data", program=(sys.executable, str(Path(__file__).with_name("stub.py"))))
    service = Service(settings)
    service.stop()
    connection = sqlite3.connect(settings.data / "sfumato.sqlite")
    with connection:
        for number in range(10_000):
            connection.execute(JOB_ROW, (f"j{number}", number))
            file = f"2026-01-01/p{number}.png"
            connection.execute(PICTURE_ROW, (f"p{number}", f"j{number}", f"sha256:{number}", file))
    connection.close()
    day = settings.data / "pictures" / "2026-01-01"
    day.mkdir(parents=True)
    for number in range(10_000):
        (day / f"p{number}.png").touch()
    (day / "stray.png").touch()
    started = time.monotonic()
    service = Service(settings)
    service.start()
    ready = time.monotonic() - started
    found, _ = service.jobs(search="red house", limit=50)
    assert len(found) == 50
    asked = time.monotonic()
    service.pictures(limit=100)
    answered = time.monotonic() - asked
    service.stop()
    print(f"ready after {ready:.2f} s, a page of pictures after {answered * 1000:.0f} ms")
    assert ready < 3.0
    assert answered < 0.5 * LOADED
    assert [path.name.partition("-")[2] for path in (settings.data / "lost+found").iterdir()] == [
        "2026-01-01-stray.png"
    ]


@pytest.mark.slow
def test_posts_are_acknowledged_at_a_good_rate(tmp_path: Path) -> None:
    """Four clients post 400 jobs; the queue does not run meanwhile, since the first job takes its time."""
    server = Running(tmp_path / "data")
    first = submit(server, "a slow house", steps=1000)

    def post(name: int) -> list[float]:
        found = []
        with httpx2.Client(base_url=f"{server.address}/sfumato/v1", timeout=60) as http:
            for number in range(100):
                started = time.monotonic()
                answer = http.post("/jobs", json={"request": {"prompt": f"{name} {number}"}})
                found.append(time.monotonic() - started)
                assert answer.status_code == 202
        return found

    share, started = Share(server.process.pid), time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        delays = sorted(delay for found in pool.map(post, range(4)) for delay in found)
    rate, p95 = len(delays) / (time.monotonic() - started), delays[int(len(delays) * 0.95)]
    slower = share.slower()
    print(f"{rate:.0f} posts a second are on the disk; p95 {p95 * 1000:.0f} ms (by others {slower:.1f} times slower)")
    server.http.post("/queue/clear")
    server.http.post(f"/jobs/{first}/cancel")
    assert server.stop() == 0
    assert rate > 50 / slower
    assert p95 < 0.1 * slower


@pytest.mark.slow
def test_two_hundred_listeners_cost_little_and_who_reads_nothing_is_let_go(tmp_path: Path) -> None:
    server = Running(tmp_path / "data")
    quiet = submit(server, "x", width=16, height=16)
    until(server, quiet, "done")
    before = server.http.get("/system").json()
    idle = [listening(server, f"/jobs/{quiet}/events") for _ in range(200)]
    deaf = [listening(server, "/events") for _ in range(20)]
    most = 0
    deadline = time.monotonic() + 120 * LOADED
    for number in range(150):  # until more is told than a backlog and the buffers of two sockets hold
        until(server, submit(server, f"{number}" + "x" * 50_000, width=16, height=16), "done")
        told = server.http.get("/system").json()
        most = max(most, told["memory"]["server"] - before["memory"]["server"])
        if told["listeners"] == len(idle):
            break
        assert time.monotonic() < deadline, told["listeners"]
    print(f"220 listeners cost {most / 2**20:.0f} MiB; the deaf were let go after {number + 1} jobs")
    assert told["listeners"] == len(idle)
    assert most < 100 * 2**20
    for each in (*idle, *deaf):
        each.close()
    assert server.stop() == 0


def listening(server: Running, path: str) -> socket.socket:
    """A connection that has asked for events, and reads none of them."""
    port = int(server.address.rpartition(":")[2])
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little is taken from the server unread
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET /sfumato/v1{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return connection
