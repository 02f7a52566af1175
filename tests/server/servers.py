"""Servers as processes, started and ended as people and systems do."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import httpx2

ADDRESS = "http://127.0.0.1:7860"
"""What a server in this process is called by."""


class Share:
    """What part of the processor a process gets, of what it could use, from here on."""

    def __init__(self, pid: int | str = "self") -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._before = self._read()

    def _read(self) -> dict[str, tuple[int, int]]:
        """Of each thread, the nanoseconds that it ran, and that it could have run while others did (Linux)."""
        found = {}
        for task in self._tasks.iterdir() if self._tasks.is_dir() else ():
            with contextlib.suppress(OSError):  # a thread that has just ended
                run, wait, _ = map(int, (task / "schedstat").read_text().split())
                found[task.name] = (run, wait)
        return found

    def slower(self) -> float:
        """By what factor its computing took longer than on a machine of its own; 1 on one that nobody else uses."""
        now = self._read()
        ran, waited = (sum(now[id][each] - self._before.get(id, (0, 0))[each] for id in now) for each in (0, 1))
        return 1.0 + waited / ran if ran else 1.0


class Running:
    """A server that runs; `http` calls it."""

    def __init__(self, data: Path, log: IO[str] | None = None, **given: Any) -> None:
        settings = json.dumps({"data": str(data), **given})
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("launch.py")), settings],
            stdout=subprocess.PIPE,
            stderr=log or subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, f"the server did not start: {self.process.wait()}"
        self.http = httpx2.Client(base_url=f"{self.address}/sfumato/v1", timeout=30)

    def worker(self) -> int | None:
        """The worker's process number, if there is one now."""
        found: int | None = self.http.get("/system").json()["worker"]["pid"]
        return found

    def kill(self) -> None:
        """End it by SIGKILL; its worker is left to notice."""
        self.process.kill()
        self._reap()

    def stop(self, sent: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """End it by a signal; returns its exit code."""
        os.kill(self.process.pid, sent)
        code = self.process.wait(seconds)
        self._reap()
        return code

    def _reap(self) -> None:
        self.http.close()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
