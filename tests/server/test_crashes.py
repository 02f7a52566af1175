"""Killed at any moment, the server loses nothing that it acknowledged and makes nothing twice.

This is about the death of processes; that the disk's own order of writing is kept when power fails is SQLite's and
the file system's promise, which the flushes here rely on.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from chaos import inspect
from commit_once import ID, accept, draw
from servers import Running

from sfumato.server import queue as jobs
from sfumato.server.database import Database
from sfumato.server.gallery import Folders

CALLS = "openat,write,pwrite64,fsync,fdatasync,mkdir,rename,renameat,unlink,ftruncate,close,lseek,fcntl"
STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which kills at a system call, is not here")


@STRACE
def test_killed_at_some_system_calls_of_a_job_it_ends_as_if_it_were_not(tmp_path: Path) -> None:
    enumerate_kills(tmp_path, every=17)


@STRACE
@pytest.mark.slow
def test_killed_at_every_system_call_of_a_job_it_ends_as_if_it_were_not(tmp_path: Path) -> None:
    enumerate_kills(tmp_path, every=1)


def enumerate_kills(tmp_path: Path, every: int) -> None:
    calls, told = traced(tmp_path / "whole")
    assert "accepted" in told
    assert inspect(tmp_path / "whole", {ID}) == {ID: "done"}
    assert len(calls) > 60
    lost_before_accepted = 0
    for number, (name, nth) in list(enumerate(calls))[::every]:
        data = tmp_path / f"killed-{number}"
        _, told = traced(data, inject=f"{name}:signal=KILL:when={nth}")
        lost_before_accepted += "accepted" not in told
        recovered(data, accepted="accepted" in told)
        shutil.rmtree(data)
    assert lost_before_accepted > 0  # so some were killed before the acknowledgement, and most after


def recovered(data: Path, *, accepted: bool) -> None:
    """Start anew on what is left, finish, and look."""
    folders = Folders(data)
    folders.make()
    database = Database(data / "sfumato.sqlite")
    database.change(lambda connection: jobs.recover(connection, "the next boot", time.time(), most=3))
    with database.reading() as connection:
        known = {file for (file,) in connection.execute("SELECT file FROM pictures")}
        found = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
    folders.set_apart(known)
    assert found or not accepted
    accept(database)  # under the same key: the client that saw no answer asks again
    draw(database, folders, "the next boot")
    database.close()
    assert inspect(data, {ID}) == {ID: "done"}
    assert not list((data / "staging").iterdir())


def traced(data: Path, inject: str = "") -> tuple[list[tuple[str, int]], str]:
    """The system calls of one job that touch its folder, and what the process said. Killed at `inject`."""
    data.mkdir()
    log = data.parent / "strace.log"
    script = Path(__file__).with_name("commit_once.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        command = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={CALLS}", "-p", str(process.pid)]
        command += ["-e", f"inject={inject}"] if inject else []
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            with contextlib.suppress(BrokenPipeError):  # killed at once
                process.stdin.write("\n")
                process.stdin.close()
            told = process.stdout.read()
            process.wait()
            process.stdin = None
    lines = [line for line in log.read_text().splitlines() if "(" in line and "resumed>" not in line]
    calls = [line.split("(")[0].split()[-1] for line in lines]
    counted = [(name, calls[: at + 1].count(name)) for at, name in enumerate(calls)]
    return [each for each, line in zip(counted, lines, strict=True) if str(data) in line], told


def test_killed_at_random_moments_nothing_is_lost_or_made_twice(tmp_path: Path) -> None:
    kill_at_random(tmp_path / "data", kills=4, clients=2)


@pytest.mark.slow
def test_killed_five_hundred_times_nothing_is_lost_or_made_twice(tmp_path: Path) -> None:
    """SFUMATO_TEST_KILLS is another number of kills."""
    kill_at_random(tmp_path / "data", kills=int(os.environ.get("SFUMATO_TEST_KILLS", 500)), clients=4)


def kill_at_random(data: Path, kills: int, clients: int) -> None:
    seed = int(os.environ.get("SFUMATO_TEST_SEED", random.randrange(2**32)))
    print(f"seed {seed}")  # to be given back in SFUMATO_TEST_SEED
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    answers: dict[str, set[str]] = {}
    server = Running(data)
    over = threading.Event()
    address = [server.address]

    def submit(name: str) -> None:
        with httpx2.Client(timeout=10) as http:
            while not over.is_set():
                key = uuid.uuid4().hex
                body = {"request": {"prompt": f"{name} {key}", "steps": 1, "width": 16, "height": 16}}
                while not over.is_set():  # the same key until there is an answer
                    try:
                        answer = http.post(f"{address[0]}/sfumato/v1/jobs", json=body, headers={"Idempotency-Key": key})
                        acknowledged.add(answer.json()["id"])
                        answers.setdefault(key, set()).add(answer.json()["id"])
                        break
                    except (httpx2.TransportError, KeyError, ValueError):
                        time.sleep(0.05)
                time.sleep(0.1)

    threads = [threading.Thread(target=submit, args=(f"c{number}",)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        while not acknowledged:
            time.sleep(0.05)
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 0.6))
            victim = chance.choice(("server", "worker", "both"))
            with contextlib.suppress(httpx2.HTTPError, ProcessLookupError, KeyError, ValueError):
                worker = server.worker() if victim != "server" else None
                if worker is not None:
                    os.kill(worker, signal.SIGKILL)
            if victim != "worker":
                server.kill()
                server = Running(data)
                address[0] = server.address
    finally:
        over.set()
        for thread in threads:
            thread.join()
    counts = server.http.get("/system").json()["queue"]  # and not the queue itself, whose making would hold it up
    deadline = time.monotonic() + 120 + counts["queued"]  # a second for each
    while counts["queued"] or counts["running"]:
        assert time.monotonic() < deadline, f"{counts['queued']} jobs still wait"
        time.sleep(0.1)
        counts = server.http.get("/system").json()["queue"]
    assert server.stop() == 0
    states = inspect(data, acknowledged)
    assert all(len(ids) == 1 for ids in answers.values())
    done = [id for id in acknowledged if states[id] == "done"]
    assert len(done) >= 0.9 * len(acknowledged)  # a job whose three attempts were all killed has failed, and says so


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("crashes") / "data")
    yield running
    assert running.stop() == 0


def test_a_client_that_asks_again_after_a_lost_answer_has_one_job(server: Running) -> None:
    found = set()
    for number in range(40):
        headers = {"Idempotency-Key": f"k{number // 2}"}
        body = {"request": {"prompt": f"p{number // 2}", "width": 16, "height": 16}}
        found.add(server.http.post("/jobs", json=body, headers=headers).json()["id"])
    assert len(found) == 20
    other = server.http.post("/jobs", json={"request": {"prompt": "other"}}, headers={"Idempotency-Key": "k0"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency.mismatch")


def test_an_interrupted_job_has_the_pixels_of_an_undisturbed_one(server: Running, tmp_path: Path) -> None:
    prompt = f"crash-once {tmp_path / 'mark'}"
    (tmp_path / "mark").touch()
    calm = finished(server, server.http.post("/jobs", json={"request": {"prompt": prompt, "count": 3}}).json()["id"])
    seed = calm["request"]["seed"]
    (tmp_path / "mark").unlink()
    again = server.http.post("/jobs", json={"request": {"prompt": prompt, "count": 3, "seed": seed}}).json()["id"]
    disturbed = finished(server, again)
    assert (calm["attempt"], disturbed["attempt"]) == (1, 2)
    assert [each["sha256"] for each in calm["pictures"]] == [each["sha256"] for each in disturbed["pictures"]]


def test_a_job_that_kills_its_worker_fails_after_three_attempts_and_others_go_on(server: Running) -> None:
    poison = server.http.post("/jobs", json={"request": {"prompt": "crash"}}).json()["id"]
    good = server.http.post("/jobs", json={"request": {"prompt": "good"}}).json()["id"]
    told = finished(server, poison)
    assert (told["state"], told["attempt"], told["error"]["code"]) == ("failed", 3, "worker_crashed")
    assert finished(server, good)["state"] == "done"


def finished(server: Running, id: str, seconds: float = 60.0) -> dict:  # type: ignore[type-arg]  # JSON
    deadline = time.monotonic() + seconds
    while (job := server.http.get(f"/jobs/{id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.03)
    return job
