"""Servers as processes, started and ended as people and systems do."""

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
