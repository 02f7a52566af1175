"""One worker and the thread that keeps it busy: claims a job, has it drawn, commits what came; replaces what died."""

import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from sfumato.server import gallery
from sfumato.server import queue as jobs
from sfumato.server.database import Database, DiskFullError, as_ours
from sfumato.server.gallery import Folders
from sfumato.server.problems import plain
from sfumato.server.process import WorkerProcess
from sfumato.server.settings import Settings
from sfumato.server.spare import Spare

log = logging.getLogger(__name__)

TICK = 0.1  # seconds between two looks at what else is wanted
LONGEST = 30.0  # seconds between two starts of a worker that does not start


class Watcher(Protocol):
    """Who is told what happens to jobs; called from the runner's thread, after it is on the disk."""

    def changed(self, row: sqlite3.Row) -> None: ...

    def progressed(self, job: str, kind: str, data: dict[str, Any]) -> None: ...

    def drawn(self, row: sqlite3.Row) -> None: ...

    def task(self, row: sqlite3.Row) -> dict[str, Any]: ...


class Runner:
    """Draws one job after the other. `stop` and `wake` may be called from any thread."""

    def __init__(
        self, settings: Settings, database: Database, folders: Folders, spare: Spare, boot: str, watcher: Watcher
    ) -> None:
        self._settings, self._database, self._folders, self._spare = settings, database, folders, spare
        self._boot, self._watcher = boot, watcher
        self._more = threading.Event()
        self._stopping: float | None = None  # when the running job must be over
        self._failures = 0  # starts of a worker, since the last that went well
        self._worker: WorkerProcess | None = None
        self.hello: dict[str, Any] = {}
        self.restarts = -1
        self.loaded: set[str] = set()  # models in the worker's memory
        self._wishes: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to look at."""
        self._more.set()

    def halt(self, job: str, wish: str) -> None:
        """Have a running job's pictures called done as they are: those that are drawn now (`skip`), or all (`stop`)."""
        self._wishes[job] = wish

    def stop(self, seconds: float) -> None:
        """Claim no more; the running job has so long to finish, then it goes back into the queue, uncounted."""
        self._stopping = min(self._stopping or float("inf"), time.monotonic() + seconds)
        self._more.set()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the end; has it come?"""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Is there a worker that has said hello?"""
        return self._worker is not None and bool(self.hello)

    @property
    def pid(self) -> int | None:
        """The worker's process number, if there is one."""
        return self._worker.pid if self._worker else None

    def _run(self) -> None:
        while self._stopping is None:
            try:
                self._turn()
            except Exception:  # every job needs this thread, whatever one of them met
                log.exception("the runner goes on after an error")
                self._pause(1.0)
        if self._worker is not None:
            self._worker.kill()

    def _turn(self) -> None:
        """One job, or a wait for one."""
        if self._worker is None and not self._start_worker():
            self._failures += 1
            self._pause(min(0.5 * 2 ** min(self._failures, 10), LONGEST))  # it is not asked in a hurry
            return
        self._failures = 0
        self._spare.keep()
        row = self._patiently(lambda: self._claim())
        if row is None:
            self._wait()
            return
        run = Run(self, row)
        try:
            self._watcher.changed(row)
            self._work_on(run, row)
        except Exception:
            log.exception("job %s met an error of the server", row["id"])
            run.crashed("the server met an error")

    def _pause(self, seconds: float) -> None:
        """Wait until somebody wakes us from now on, or the server stops."""
        self._more.clear()
        if self._stopping is None:
            self._more.wait(seconds)

    def _wait(self) -> None:
        """Until somebody wakes us; a worker that dies meanwhile is replaced before it is needed."""
        self._more.wait(1.0)
        self._more.clear()
        assert self._worker is not None
        try:
            if self._worker.hear(0) is None:
                self._drop_worker("it ended between two jobs")
        except queue.Empty:
            return

    def _start_worker(self) -> bool:
        """A worker that has said hello, if one can be had."""
        self.restarts += 1
        command = (*self._settings.program, "draw", self._settings.device or "", self._settings.dtype or "")
        deadline = time.monotonic() + self._settings.limits.start
        try:
            self._worker = WorkerProcess(command)
        except OSError as error:
            log.error("no worker can be started: %s", error)
            return False
        while time.monotonic() < deadline and self._stopping is None:
            try:
                message = self._worker.hear(TICK)
            except queue.Empty:
                continue
            if message is None:
                break
            if "hello" in message:
                self.hello = message["hello"]
                return True
        self._drop_worker("it did not start")
        return False

    def _drop_worker(self, why: str) -> None:
        if self._worker is not None:
            if self._stopping is None:
                log.warning("the worker %d is replaced: %s", self._worker.pid, why)
            self._worker.kill()
            self._worker = None
            self.loaded = set()

    def _claim(self) -> sqlite3.Row | None:
        return self._database.change(
            lambda connection: jobs.claim(connection, self._boot, time.time(), self._settings.limits.lease)
        )

    def _work_on(self, run: "Run", row: sqlite3.Row) -> None:
        assert self._worker is not None
        if not self._worker.say(**self._watcher.task(row)):
            run.crashed("it was gone when it was given a job")
            return
        while not run.over:
            try:
                message = self._worker.hear(TICK) if self._worker else None
            except queue.Empty:
                run.look()
                continue
            run.heard(message)
            run.look()

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """What is done, even if it has to wait for room on the disk."""
        while True:
            try:
                return attempt()
            except DiskFullError as error:
                log.error("%s", error)
                if self._stopping is not None:
                    return None
                time.sleep(1.0)


class Run:
    """One attempt at one job, from claim to end."""

    def __init__(self, runner: Runner, row: sqlite3.Row) -> None:
        self._runner, self._row = runner, row
        self._id, self._attempt = row["id"], row["attempt"]
        self._heard = self._started = time.monotonic()
        self._asked: float | None = None
        self._model = str(json.loads(row["request"]).get("model", ""))
        work = json.loads(row["work"])
        self._total, self._keep = int(work.get("total", 1)), bool(work.get("keep", True))
        self.over = False

    def heard(self, message: dict[str, Any] | None) -> None:
        """Do what a message of the worker asks for."""
        self._heard = time.monotonic()
        if message is None:
            self.crashed("it died")
        elif "picture" in message:
            self._picture(message["picture"])
        elif "end" in message:
            self._end(message)
        elif "loading" in message:
            self._tell("progress", self._progress(0, 0, 0, loading=plain(message["loading"])))
        elif "progress" in message:
            told = message["progress"]
            self._runner.loaded = {self._model}
            self._tell(
                "progress", self._progress(told["step"], told["steps"], told["pictures"][0], len(told["pictures"]))
            )
        elif "preview" in message:
            self._tell("preview", {"job": self._id, **message["preview"]})

    def look(self) -> None:
        """See whether the job is cancelled, the server is to stop, or the worker hangs."""
        if self.over:
            return
        limits, now = self._runner._settings.limits, time.monotonic()
        if self._asked is None and self._cancelled():
            self._asked = now
            if self._runner._worker is not None:
                self._runner._worker.say(cancel=self._id)
        wish = self._runner._wishes.pop(self._id, None)
        if wish is not None and self._runner._worker is not None:
            self._runner._worker.say(halt=self._id, wish=wish)
        if self._asked is not None and now - self._asked > limits.kill:
            self._runner._drop_worker("it did not heed a cancel")
            self._finish("cancelled")
        elif self._runner._stopping is not None and now > self._runner._stopping:
            self._runner._drop_worker("the server stops")
            self._give_back(counted=False)
        elif now - self._heard > limits.silence:
            self.crashed("it was silent for too long")

    def crashed(self, why: str) -> None:
        """The worker is dead or is made so; the job goes back, or fails if that happened too often."""
        self._runner._drop_worker(f"{why}, while it drew {self._id}")
        self._give_back(counted=True)

    def _cancelled(self) -> bool:
        with self._runner._database.reading() as connection:
            found = connection.execute("SELECT cancel FROM jobs WHERE id = ?", (self._id,)).fetchone()
        return bool(found and found[0])

    def _progress(self, step: int, steps: int, picture: int, together: int = 1, **more: Any) -> dict[str, Any]:
        elapsed = time.monotonic() - self._started
        share = 0.0 if not steps else (picture + together * step / steps) / self._total
        left = elapsed / share - elapsed if share > 0 else None
        return {
            "job": self._id,
            "step": step,
            "steps": steps,
            "picture": picture,
            "together": together,
            "pictures": self._total,
            "elapsed": round(elapsed, 3),
            "left": None if left is None else round(left, 3),
            **more,
        }

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        self._runner._watcher.progressed(self._id, kind, data)

    def _picture(self, about: dict[str, Any]) -> None:
        """Into its place, then into the database, then to those who listen."""
        now = time.time()

        def publish() -> str:
            try:
                return self._runner._folders.publish(about["file"], gallery.picture_id(self._id, about["index"]), now)
            except OSError as error:
                raise as_ours(error) from error

        file = self._runner._patiently(publish)
        if file is None:  # there is no room, and the server stops
            self._runner._drop_worker("the server stops")
            self._give_back(counted=False)
            return

        def commit(connection: sqlite3.Connection) -> sqlite3.Row | None:
            if not jobs.holds(connection, self._id, self._attempt, self._runner._boot):
                return None
            return gallery.add_picture(connection, self._id, about, file, now, keep=self._keep)

        row = self._runner._patiently(lambda: self._runner._database.record(commit))
        if row is not None:
            self._runner._watcher.drawn(row)

    def _end(self, message: dict[str, Any]) -> None:
        error = message.get("error")
        if error is not None:
            error = {**error, "detail": plain(error["detail"])}
        self._finish(message["end"], error=error, result=message.get("result"))

    def _finish(self, state: str, *, error: dict[str, Any] | None = None, result: dict[str, Any] | None = None) -> None:
        self.over = True
        row = self._runner._patiently(
            lambda: self._runner._database.record(
                lambda connection: jobs.end(
                    connection,
                    self._id,
                    self._attempt,
                    self._runner._boot,
                    time.time(),
                    state=state,
                    error=error,
                    result=result,
                )
            )
        )
        if row is not None:
            self._runner._watcher.changed(row)

    def _give_back(self, *, counted: bool) -> None:
        self.over = True
        most = self._runner._settings.limits.attempts
        row = self._runner._patiently(
            lambda: self._runner._database.record(
                lambda connection: jobs.give_back(
                    connection, self._id, self._attempt, self._runner._boot, time.time(), counted=counted, most=most
                )
            )
        )
        if row is not None:
            self._runner._watcher.changed(row)
