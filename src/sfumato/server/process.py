"""A worker process as the server holds it: started, spoken to in lines, killed."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import Any


class WorkerProcess:
    """One worker. What it says is taken with `hear`; its end is heard as `None`.

    It inherits nothing but its pipes, and stderr, where its log goes.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="worker-lines", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def say(self, **message: Any) -> bool:
        """Send one line; False if it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def hear(self, timeout: float) -> dict[str, Any] | None:
        """The next message; None if the worker is gone. Raises queue.Empty if there is none in time."""
        return self._heard.get(timeout=timeout)

    def kill(self) -> None:
        """End it now, whatever it does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not yet written to a dead process
                    continue

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._heard.put(json.loads(line))
        except (ValueError, OSError):  # half a line, or a closed pipe: it was killed
            pass
        self._heard.put(None)
