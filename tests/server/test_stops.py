"""Told to stop at any moment, the server answers that it stops, ends in time, and loses nothing."""

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path
from statistics import median

import httpx2
import pytest
from chaos import inspect
from servers import Running, Share

STOP = 1.5  # seconds that a running job has to end in


def test_told_to_stop_at_some_moments_nothing_is_lost(tmp_path: Path) -> None:
    stop_at_random(tmp_path / "data", moments=10)


@pytest.mark.slow
def test_told_to_stop_at_a_hundred_moments_nothing_is_lost(tmp_path: Path) -> None:
    stop_at_random(tmp_path / "data", moments=100)


def stop_at_random(data: Path, moments: int) -> None:
    seed = int(os.environ.get("SFUMATO_TEST_SEED", random.randrange(2**32)))
    print(f"seed {seed}")  # to be given back in SFUMATO_TEST_SEED
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    refused: list[float] = []
    ends: dict[bool, list[float]] = {False: [], True: []}
    share = Share()
    first = Running(data)  # learns what models there are, which the others are told to stop before
    acknowledged.add(first.http.post("/jobs", json={"request": {"prompt": "first", "steps": 1}}).json()["id"])
    assert first.stop() == 0
    for moment in range(moments):
        server = Running(data, limits={"stop": STOP})
        over = threading.Event()
        client = threading.Thread(target=keep_posting, args=(server.address, over, acknowledged, refused, moment))
        client.start()
        time.sleep(chance.uniform(0.0, 1.0))
        started, twice = time.monotonic(), chance.random() < 0.3
        os.kill(server.process.pid, signal.SIGTERM)
        if twice:
            time.sleep(chance.uniform(0.0, 0.3))
            started = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.process.pid, signal.SIGINT)
        assert server.process.wait(30) == 0, f"moment {moment}"
        ends[twice].append(time.monotonic() - started)
        over.set()
        client.join()
        server._reap()
        states = inspect(data, acknowledged, ended=False)
        assert set(states.values()) <= {"queued", "done"}
    told = [f"{kind}: {max(each, default=0):.2f} s" for kind, each in (("once", ends[False]), ("twice", ends[True]))]
    print(f"{len(acknowledged)} jobs; the slowest end {', '.join(told)}; {len(refused)} posts were told of it", end="")
    print(f", p95 {sorted(refused)[int(len(refused) * 0.95)] * 1000:.0f} ms" if refused else "")
    slower = share.slower()
    print(f"by others {slower:.1f} times slower")
    if moments >= 100:  # of fewer, one moment at which another program had the machine is too much
        assert median(ends[True]) < 2.0 * slower and median(ends[False]) < (STOP + 2.0) * slower
        assert median(refused) < 0.1 * slower
    uncounted(data)
    last = Running(data)
    deadline = time.monotonic() + 60 + len(acknowledged)  # each takes 0.2 s to draw
    while (counts := last.http.get("/system").json()["queue"])["queued"] or counts["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert last.stop() == 0
    assert set(inspect(data, acknowledged).values()) == {"done"}


def keep_posting(
    address: str, over: threading.Event, acknowledged: set[str], refused: list[float], moment: int
) -> None:
    """Post jobs that take a moment until the server is gone; how long the answers took that said that it stops."""
    number = 0
    with httpx2.Client(base_url=f"{address}/sfumato/v1", timeout=10) as http:
        while not over.is_set():
            number += 1
            request = {"prompt": f"a slow {moment} {number}", "steps": 4, "width": 16, "height": 16}
            started = time.monotonic()
            try:
                answer = http.post("/jobs", json={"request": request})
            except httpx2.TransportError:
                return
            if answer.status_code == 503:
                assert answer.json()["code"] == "stopping" and int(answer.headers["retry-after"]) > 0
                refused.append(time.monotonic() - started)
            elif answer.status_code == 500:  # cut off by the end itself, on a slow machine: nothing was acknowledged
                return
            else:
                assert answer.status_code == 202, answer.text
                acknowledged.add(answer.json()["id"])
            time.sleep(0.05)


def uncounted(data: Path) -> None:
    """No attempt counts that ended because the server was told to stop."""
    connection = sqlite3.connect(data / "sfumato.sqlite")
    try:
        assert connection.execute("SELECT count(*) FROM jobs WHERE state = 'queued' AND tries > 0").fetchone()[0] == 0
    finally:
        connection.close()
