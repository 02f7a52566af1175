"""`sfumato serve` as the studio's tests start it, and how long they wait for it."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

PATIENCE = 300_000  # ms; on a busy machine a picture takes its time, and no test here is about that


class Server:
    """`sfumato serve` in a folder of its own; it can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.address = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self, *options: str) -> None:
        """Start it and wait until it says where it serves."""
        place = ["--port", str(self.port), "--data", str(self.folder / "data")]
        command = [sys.executable, "-m", "sfumato", "serve", *place, *options]
        environment = {**os.environ, "SFUMATO_HOME": str(self.folder / "home")}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        told: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, args=(self._process, told), daemon=True)
        self._listener.start()
        self.address = told.get(timeout=PATIENCE / 1000)
        self.port = int(self.address.rpartition(":")[2])

    @staticmethod
    def _listen(process: "subprocess.Popen[str]", told: "queue.Queue[str]") -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                if "serves at " in line:
                    told.put(line.rpartition("serves at ")[2].strip())

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Have it end."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=PATIENCE / 1000)
        finally:
            self._process.kill()  # nothing, where it has ended
        self._listener.join(PATIENCE / 1000)  # until the worker has gone, too, and nobody holds the other end
