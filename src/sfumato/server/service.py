"""What every API of the server stands on: submit, wait, cancel, look, listen. No torch, and safe from any thread."""

import asyncio
import hashlib
import json
import logging
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sfumato import __version__
from sfumato.request import Request
from sfumato.server import gallery
from sfumato.server import queue as jobs
from sfumato.server.accept import accept
from sfumato.server.album import Album
from sfumato.server.beside import Beside
from sfumato.server.broker import Broker
from sfumato.server.catalogue import Catalogue
from sfumato.server.database import Database, hold
from sfumato.server.gallery import Folders
from sfumato.server.intake import Intake
from sfumato.server.problems import Problem
from sfumato.server.queue import NewJob
from sfumato.server.resident import memory, room
from sfumato.server.roster import Roster
from sfumato.server.runner import Runner
from sfumato.server.settings import Settings
from sfumato.server.spare import Spare
from sfumato.server.texts import picture_ids
from sfumato.server.values import ENDED, Job, Progress
from sfumato.server.views import job_of, moment, picture_of

log = logging.getLogger(__name__)


class Service(Album, Roster):
    """One server's state. Call `start` once, and `stop` in the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.boot = uuid.uuid4().hex
        self.started = time.time()
        self.draining = False
        self._handle = hold(settings.data)
        self.folders = Folders(settings.data)
        self.folders.make()
        limits = settings.limits
        spare = Spare(settings.data / "spare", limits.spare)
        self.database = Database(settings.data / "sfumato.sqlite", spare)
        self.broker = Broker(limits.events, limits.backlog)
        self.intake = Intake(self.folders.uploads, limits.decode)
        self.catalogue = Catalogue(settings, self.folders.tokenizers, self.database, self._models_changed)
        self.beside = Beside(settings, lambda: room(self.runner.pid, self.runner.hello.get("device")))
        self.runner = Runner(settings, self.database, self.folders, spare, self.boot, self)
        self._moments: dict[str, dict[str, dict[str, Any]]] = {}  # of running jobs: the last progress and preview

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Put the house in order after whatever happened, and begin to work."""
        now, most = time.time(), self.settings.limits.attempts
        for row in self.database.record(lambda connection: jobs.recover(connection, self.boot, now, most=most)):
            log.warning("job %s was interrupted; it is %s now", row["id"], row["state"])
        with self.database.reading() as connection:
            known = {file for (file,) in connection.execute("SELECT file FROM pictures")}
        for name in self.folders.set_apart(known):
            log.warning("picture %s belongs to no job; it is in lost+found now", name)
        self.catalogue.start()
        self.runner.start()

    def drain(self, seconds: float) -> None:
        """Take nothing more; what runs has so long to finish."""
        self.draining = True
        self.runner.stop(seconds)

    def hang_up(self) -> None:
        """Let go of everybody who listens, or waits for what the catalogue would learn."""
        self.broker.close()
        self.catalogue.stop()

    def stop(self) -> None:
        """The end: all is on the disk, and the folder is free for another server."""
        self.drain(0.0 if not self.draining else self.settings.limits.stop)
        self.runner.join()
        self.hang_up()
        self.database.close()
        os.close(self._handle)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def submit(
        self,
        request: Request | Mapping[str, Any],
        *,
        uploads: Mapping[str, bytes] | None = None,
        api: str = "native",
        client: str = "",
        key: str | None = None,
        title: str | None = None,
        priority: int = 0,
        keep: bool = True,
        retry_of: str | None = None,
    ) -> Job:
        """Put a request into the queue; it is on the disk, with everything decided, when this returns.

        `uploads` are picture files for the fields `image` and `mask`. `key`: the same key and request give the same
        job. Without `keep` the pictures come into the bin. Raises RequestError and Problem.
        """
        if self.draining:
            raise Problem(503, "stopping", "the server is stopping; try again later", retry_after=10)
        given = dict(request.to_dict() if isinstance(request, Request) else request)
        stated = json.dumps([given, title, priority, keep, retry_of], sort_keys=True, default=str).encode()
        body = hashlib.sha256(stated).hexdigest() if key else None
        scoped = f"{api} {client} {key}" if key else None
        if scoped is not None:
            with self.database.reading() as connection:
                found = jobs.known(connection, scoped, body)
            if found is not None:
                return self._job(found)
        for field, content in (uploads or {}).items():
            given[field] = self.add_upload(content).id
        resolved, work = accept(Request.from_dict(given), self.catalogue, self.beside, self._size_of)
        self.check_room()
        prompt = "\n".join([*resolved.prompts, resolved.negative_prompt])
        new = NewJob(
            id=str(uuid.uuid4()),
            kind="draw",
            title=title or resolved.prompts[0][:120] or "untitled",
            api=api,
            client=client,
            priority=priority,
            request=resolved.to_dict(),
            work=work | {"keep": keep},
            prompt=prompt,
            retry_of=retry_of,
            key=scoped,
            body=body,
        )
        return self._add(new)

    def retry(self, id: str, *, client: str = "") -> Job:
        """A new job with the request of an ended one."""
        with self.database.reading() as connection:
            row = jobs.get(connection, id)
        if row["state"] not in ENDED:
            raise Problem(409, "job.not_ended", f"the job is {row['state']}; only ended ones can be tried again")
        if row["kind"] == "replay":
            return self.replay(json.loads(row["work"])["picture"], client=client)
        return self.submit(
            json.loads(row["request"]),
            api=row["api"],
            client=client or row["client"],
            title=row["title"],
            priority=row["priority"],
            keep=json.loads(row["work"]).get("keep", True),
            retry_of=id,
        )

    def replay(self, picture: str, *, client: str = "") -> Job:
        """A job that makes a picture again and compares."""
        with self.database.reading() as connection:
            row = gallery.get_picture(connection, picture)
            job = None if row["job"] is None else jobs.get(connection, row["job"])
        record = json.loads(row["record"])
        asked = record.get("request", {}) if job is None else json.loads(job["request"])
        # the record names pictures by what was made of them, the job by what was handed in
        handed = dict(zip(picture_ids(record.get("request", {})), picture_ids(asked), strict=False))
        work = {"picture": picture, "replay": row["file"], "ids": handed, "total": 1}
        return self._add(
            NewJob(
                id=str(uuid.uuid4()),
                kind="replay",
                title=f"again: {row['prompt'][:110]}",
                api="native",
                client=client,
                priority=0,
                request=record.get("request", {}),
                work=work,
                prompt=row["prompt"],
            )
        )

    def _add(self, new: NewJob) -> Job:
        limits, now = self.settings.limits, time.time()
        row = self.database.change(
            lambda connection: jobs.add(connection, new, now, most=limits.queue, most_of_client=limits.client_queue)
        )
        # a new job has no pictures, and to look would be to wait for the next commit
        job = job_of(row, [], None, None) if row["id"] == new.id else self._job(row)
        self.broker.publish("job", job.model_dump(), job.id)
        self.runner.wake()
        return job

    def job(self, id: str) -> Job:
        """A job as it is now. Raises Problem 404."""
        with self.database.reading() as connection:
            row = jobs.get(connection, id)
            waits = jobs.order(connection) if row["state"] == "queued" else ()
        return self._jobs([row], waits)[0]

    async def wait(self, id: str, timeout: float | None = None) -> Job:
        """The job when it has ended, or as it is after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        subscriber = self.broker.subscribe(job=id)
        try:
            while True:
                job = await asyncio.to_thread(self.job, id)
                left = 60.0 if deadline is None else deadline - time.monotonic()
                if job.over or left <= 0:
                    return job
                await subscriber.news("job", min(left, 60.0))
                if subscriber.closed:
                    return job
        finally:
            self.broker.leave(subscriber)

    def jobs(
        self, *, states: Sequence[str] = (), search: str = "", limit: int = 50, before: int | None = None
    ) -> tuple[list[Job], int | None]:
        """The history, newest first, and the cursor of the next page."""
        with self.database.reading() as connection:
            rows, following = jobs.history(connection, states, search, limit, before)
        return self._jobs(rows), following

    def queue(self) -> tuple[list[Job], list[Job]]:
        """What runs, and what waits, in the order in which it will run."""
        with self.database.reading() as connection:
            running, waiting = jobs.running(connection), jobs.waiting(connection)
        return self._jobs(running), self._jobs(waiting, [row["id"] for row in waiting])

    def running(self) -> list[Job]:
        """What runs."""
        with self.database.reading() as connection:
            rows = jobs.running(connection)
        return self._jobs(rows)

    def waiting(self) -> list[str]:
        """The ids of what waits, in the order in which it will run."""
        with self.database.reading() as connection:
            return jobs.order(connection)

    def cancel(self, id: str) -> Job:
        """End a queued job now, a running one within a step; an ended one stays as it is."""
        row = self.database.change(lambda connection: jobs.cancel(connection, id, time.time()))
        return self._changed(row)

    def halt(self, id: str, wish: Literal["skip", "stop"] = "stop") -> Job:
        """Call a running job's pictures done as they are: those that are drawn now (`skip`), or the whole job.

        A queued job is cancelled; an ended one stays as it is.
        """
        job = self.job(id)
        if job.state == "running":
            self.runner.halt(id, wish)
        return self.cancel(id) if job.state == "queued" else job

    def clear(self) -> int:
        """Cancel all that is queued; how many were there?"""
        rows = self.database.change(lambda connection: jobs.clear(connection, time.time()))
        for row in rows:
            self._changed(row)
        return len(rows)

    def prioritise(self, id: str, priority: int) -> Job:
        """Give a queued job another priority."""
        return self._changed(self.database.change(lambda connection: jobs.change_priority(connection, id, priority)))

    def move_before(self, id: str, other: str) -> Job:
        """Put a queued job before another one."""
        return self._changed(self.database.change(lambda connection: jobs.move_before(connection, id, other)))

    def forget(self, id: str) -> Job:
        """Remove an ended job from the history; its pictures stay."""
        job = self.job(id)
        self.database.change(lambda connection: jobs.forget(connection, id))
        self.broker.publish("deleted", {"job": id}, id)
        return job

    def progress(self, id: str) -> Progress | None:
        """How far a running job is."""
        told = self._moments.get(id, {}).get("progress")
        return None if told is None else Progress(**{name: value for name, value in told.items() if name != "job"})

    def preview(self, id: str) -> str | None:
        """The newest preview of a running job, as a data URL."""
        told = self._moments.get(id, {}).get("preview")
        return None if told is None else str(told["image"])

    # --- the whole --------------------------------------------------------------------------------------------------

    def system(self) -> dict[str, Any]:
        """What the server is and does."""
        with self.database.reading() as connection:
            counts = jobs.counts(connection)
        hello = self.runner.hello
        return {
            "version": __version__,
            "device": hello.get("device"),
            "dtype": hello.get("dtype"),
            "worker": {"ready": self.runner.ready, "pid": self.runner.pid, "restarts": max(self.runner.restarts, 0)},
            "memory": memory(self.runner.pid),
            "queue": {state: counts.get(state, 0) for state in ("queued", "running", "done", "failed", "cancelled")},
            "listeners": self.broker.listeners,
            "started": moment(self.started),
            "disk_free": shutil.disk_usage(self.settings.data).free,
            "stopping": self.draining,
        }

    # --- what the runner asks and tells -----------------------------------------------------------------------------

    def task(self, row: sqlite3.Row) -> dict[str, Any]:
        """What the worker is told of a job."""
        request, work = json.loads(row["request"]), json.loads(row["work"])
        task: dict[str, Any] = {
            "draw": row["id"],
            "attempt": row["attempt"],
            "request": request,
            "folder": str(self.folders.staging),
            "data": str(self.folders.data),
            "hash": work.get("hash"),
            "files": work.get("files", []),
            "pictures": {},
        }
        ids = work.get("ids", [])
        for name, id in ids.items() if isinstance(ids, dict) else zip(ids, ids, strict=True):
            try:
                task["pictures"][name] = str(self.pixels_place(id)[0])
            except Problem:  # the worker says that it is not there
                task["pictures"][name] = str(self.folders.staging / id.removeprefix("sha256:"))
        if row["kind"] == "replay":
            task["replay"] = str(self.folders.pictures / work["replay"])
        return task

    def changed(self, row: sqlite3.Row) -> None:
        """A job has another state."""
        self._changed(row)

    def progressed(self, job: str, kind: str, data: dict[str, Any]) -> None:
        """A job is further."""
        self._moments.setdefault(job, {})[kind] = data
        self.broker.publish(kind, data, job)

    def drawn(self, row: sqlite3.Row) -> None:
        """A picture is there."""
        self.broker.publish("picture", picture_of(row).model_dump(), row["job"])

    def _changed(self, row: sqlite3.Row) -> Job:
        if row["state"] != "running":
            self._moments.pop(row["id"], None)
        job = self._job(row)
        self.broker.publish("job", job.model_dump(), job.id)
        return job

    def _models_changed(self) -> None:
        self.broker.publish("models", {})

    # --- inside -----------------------------------------------------------------------------------------------------

    def _size_of(self, id: str) -> tuple[int, int]:
        return self.pixels_place(id)[1]

    def _job(self, row: sqlite3.Row) -> Job:
        return self._jobs([row])[0]

    def _jobs(self, rows: Sequence[sqlite3.Row], waits: Sequence[str] = ()) -> list[Job]:
        """Rows as the API tells them; `waits` are the ids of what waits, for those whose place in it is told."""
        order = {id: place for place, id in enumerate(waits, 1)}
        with self.database.reading() as connection:
            # what waits may have pictures of an attempt that was cut short
            drawn = gallery.pictures_of_jobs(connection, [row["id"] for row in rows])
        return [
            job_of(
                row,
                [picture_of(picture) for picture in drawn[row["id"]]],
                self.progress(row["id"]),
                order.get(row["id"]),
            )
            for row in rows
        ]
