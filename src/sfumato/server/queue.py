"""The queue as changes and questions to the database: every function takes the connection first.

Executed at least once, committed exactly once: a claim raises the job's `attempt`, and what is reported for an older
attempt, or by another boot of the server, changes nothing.
"""

import json
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

from sfumato.server.problems import Problem
from sfumato.server.values import ENDED, Kind

Row = sqlite3.Row
Connection = sqlite3.Connection

CRASHED = {
    "code": "worker_crashed",
    "detail": "the worker died each time it drew this; nothing else was affected",
    "hint": "try smaller pictures, or another model; the server's log says more",
}


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as it is put into the queue: all that it depends on is in it."""

    id: str
    kind: Kind
    title: str
    api: str
    client: str
    priority: int
    request: Mapping[str, Any]
    work: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""
    retry_of: str | None = None
    key: str | None = None
    body: str | None = None


def known(connection: Connection, key: str | None, body: str | None) -> Row | None:
    """The job that was posted under this key. Raises Problem if it was posted with another body."""
    if key is None:
        return None
    row: Row | None = connection.execute("SELECT * FROM jobs WHERE idempotency = ?", (key,)).fetchone()
    if row is not None and row["body"] != body:
        raise Problem(
            409,
            "idempotency.mismatch",
            "this Idempotency-Key was used for another request; use a new key for a new request",
        )
    return row


def add(connection: Connection, job: NewJob, now: float, *, most: int, most_of_client: int) -> Row:
    """Put a job into the queue, once for each idempotency key. Raises Problem if the queue is full."""
    found = known(connection, job.key, job.body)
    if found is not None:
        return found
    total, own = connection.execute(
        "SELECT count(*), coalesce(sum(client = ?), 0) FROM jobs WHERE state = 'queued'", (job.client,)
    ).fetchone()
    if total >= most or own >= most_of_client:
        which = f"{total} jobs wait" if total >= most else f"{own} of your jobs wait"
        raise Problem(429, "queue.full", f"{which}, which is the most; try again when some are done", retry_after=5)
    search = f"{job.title}\n{job.prompt}".lower()
    row: Row = connection.execute(
        """INSERT INTO jobs (id, kind, state, title, api, client, priority, place, request, work, search, created,
                             retry_of, idempotency, body)
           VALUES (?, ?, 'queued', ?, ?, ?, ?, (SELECT coalesce(max(place), 0) + 1 FROM jobs), ?, ?, ?, ?, ?, ?, ?)
           RETURNING *""",
        (
            job.id,
            job.kind,
            job.title,
            job.api,
            job.client,
            job.priority,
            json.dumps(job.request),
            json.dumps(job.work),
            search,
            now,
            job.retry_of,
            job.key,
            job.body,
        ),
    ).fetchone()
    return row


# The next to run: of the highest priority, from the client that has waited for its turn longest, its first.
_NEXT = """SELECT j.id FROM jobs j LEFT JOIN turns t ON t.client = j.client WHERE j.state = 'queued'
           ORDER BY j.priority DESC, coalesce(t.turn, 0), j.place LIMIT 1"""


def claim(connection: Connection, owner: str, now: float, lease: float) -> Row | None:
    """Take the next job; it is running from here on, and this attempt counts. None if nobody waits."""
    row: Row | None = connection.execute(
        f"""UPDATE jobs SET state = 'running', attempt = attempt + 1, tries = tries + 1, owner = ?, lease = ?,
                           started = ? WHERE id = ({_NEXT}) RETURNING *""",  # noqa: S608 - no foreign text in it
        (owner, now + lease, now),
    ).fetchone()
    if row is not None:
        connection.execute(
            """INSERT INTO turns (client, turn) VALUES (?, (SELECT coalesce(max(turn), 0) + 1 FROM turns))
               ON CONFLICT (client) DO UPDATE SET turn = excluded.turn""",
            (row["client"],),
        )
    return row


def holds(connection: Connection, id: str, attempt: int, owner: str) -> bool:
    """Is the job still running in this attempt and under this owner?"""
    found = connection.execute(
        "SELECT 1 FROM jobs WHERE id = ? AND attempt = ? AND owner = ? AND state = 'running'", (id, attempt, owner)
    ).fetchone()
    return found is not None


def end(
    connection: Connection,
    id: str,
    attempt: int,
    owner: str,
    now: float,
    *,
    state: str,
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> Row | None:
    """End a running job; None if this attempt is not the one that runs."""
    row: Row | None = connection.execute(
        """UPDATE jobs SET state = ?, ended = ?, error = ?, result = ?, owner = NULL, lease = NULL
           WHERE id = ? AND attempt = ? AND owner = ? AND state = 'running' RETURNING *""",
        (state, now, _json(error), _json(result), id, attempt, owner),
    ).fetchone()
    return row


def give_back(
    connection: Connection, id: str, attempt: int, owner: str, now: float, *, counted: bool, most: int
) -> Row:
    """Put a running job back to where it was in the queue; or end it, if it was cancelled or has died too often."""
    return _given_back(
        connection,
        "id = ? AND attempt = ? AND owner = ? AND state = 'running'",
        (id, attempt, owner),
        now,
        counted,
        most,
    )[0]


def recover(connection: Connection, owner: str, now: float, *, most: int) -> list[Row]:
    """After a start: what another boot of the server was running is put back, or ended if it has died too often."""
    return _given_back(connection, "state = 'running' AND owner IS NOT ?", (owner,), now, True, most)


def _given_back(
    connection: Connection, where: str, values: Sequence[Any], now: float, counted: bool, most: int
) -> list[Row]:
    rows = connection.execute(
        f"""UPDATE jobs SET
                state = CASE WHEN cancel THEN 'cancelled' WHEN ? AND tries >= ? THEN 'failed' ELSE 'queued' END,
                ended = CASE WHEN cancel OR (? AND tries >= ?) THEN ? END,
                error = CASE WHEN NOT cancel AND ? AND tries >= ? THEN ? END,
                tries = tries - CASE WHEN ? THEN 0 ELSE 1 END,
                owner = NULL, lease = NULL, started = CASE WHEN cancel THEN started END
            WHERE {where} RETURNING *""",  # noqa: S608 - `where` is one of the two above
        (counted, most, counted, most, now, counted, most, json.dumps(CRASHED), counted, *values),
    ).fetchall()
    return list(rows)


def cancel(connection: Connection, id: str, now: float) -> Row:
    """End a queued job; ask a running one to end. An ended one stays as it is."""
    row = get(connection, id)
    if row["state"] == "queued":
        connection.execute("UPDATE jobs SET state = 'cancelled', cancel = 1, ended = ? WHERE id = ?", (now, id))
    elif row["state"] == "running":
        connection.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (id,))
    return get(connection, id)


def get(connection: Connection, id: str) -> Row:
    """A job. Raises Problem 404."""
    row: Row | None = connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise Problem(404, "job.unknown", "there is no such job")
    return row


def waiting(connection: Connection) -> list[Row]:
    """The queued jobs in the order in which they will run, if none is added."""
    rows = {row["id"]: row for row in connection.execute("SELECT * FROM jobs WHERE state = 'queued'")}
    return [rows[id] for id in order(connection)]


def order(connection: Connection) -> list[str]:
    """The ids of the queued jobs in the order in which they will run: the rule of `claim`, played through."""
    turns = dict(connection.execute("SELECT client, turn FROM turns").fetchall())
    last = max(turns.values(), default=0)
    of_priority: dict[int, dict[str, deque[tuple[float, str]]]] = {}
    for id, client, priority, place in connection.execute(
        "SELECT id, client, priority, place FROM jobs WHERE state = 'queued' ORDER BY priority DESC, place"
    ):
        of_priority.setdefault(priority, {}).setdefault(client, deque()).append((place, id))
    ordered: list[str] = []
    for of_client in of_priority.values():
        next_ones = [(turns.get(client, 0), *jobs[0], client) for client, jobs in of_client.items()]
        heapify(next_ones)
        while next_ones:
            *_, id, client = heappop(next_ones)
            ordered.append(id)
            of_client[client].popleft()
            last += 1
            turns[client] = last
            if of_client[client]:
                heappush(next_ones, (last, *of_client[client][0], client))
    return ordered


def running(connection: Connection) -> list[Row]:
    """The jobs that run now."""
    return list(connection.execute("SELECT * FROM jobs WHERE state = 'running' ORDER BY started").fetchall())


def history(
    connection: Connection, states: Sequence[str], search: str, limit: int, before: int | None
) -> tuple[list[Row], int | None]:
    """Jobs, newest first, and where the next page begins."""
    where, values = ["1"], []
    if states:
        where.append(f"state IN ({', '.join('?' * len(states))})")
        values += list(states)
    for word in search.lower().split():
        where.append("instr(search, ?)")
        values.append(word)
    if before is not None:
        where.append("seq < ?")
        values.append(str(before))
    rows = connection.execute(
        f"SELECT * FROM jobs WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",  # noqa: S608
        (*values, limit + 1),
    ).fetchall()
    return list(rows[:limit]), rows[limit - 1]["seq"] if len(rows) > limit else None


def change_priority(connection: Connection, id: str, priority: int) -> Row:
    """Give a queued job another priority; it comes last among those that have it. Raises Problem."""
    _queued(connection, id)
    connection.execute(
        "UPDATE jobs SET priority = ?, place = (SELECT coalesce(max(place), 0) + 1 FROM jobs) WHERE id = ?",
        (priority, id),
    )
    return get(connection, id)


def move_before(connection: Connection, id: str, other: str) -> Row:
    """Put a queued job right before another one, with its priority. Raises Problem."""
    _queued(connection, id)
    target = _queued(connection, other)
    place = target["place"]
    nearest = connection.execute(
        "SELECT max(place) FROM jobs WHERE state = 'queued' AND priority = ? AND place < ? AND id != ?",
        (target["priority"], place, id),
    ).fetchone()[0]
    between = (place + (place - 2 if nearest is None else nearest)) / 2
    connection.execute("UPDATE jobs SET priority = ?, place = ? WHERE id = ?", (target["priority"], between, id))
    return get(connection, id)


def _queued(connection: Connection, id: str) -> Row:
    row = get(connection, id)
    if row["state"] != "queued":
        raise Problem(409, "job.not_queued", f"the job is {row['state']}; only queued ones can be moved")
    return row


def clear(connection: Connection, now: float) -> list[Row]:
    """Cancel everything that is queued."""
    return list(
        connection.execute(
            "UPDATE jobs SET state = 'cancelled', cancel = 1, ended = ? WHERE state = 'queued' RETURNING *", (now,)
        ).fetchall()
    )


def forget(connection: Connection, id: str) -> Row:
    """Remove an ended job from the history; its pictures stay. Raises Problem if it has not ended."""
    row = get(connection, id)
    if row["state"] not in ENDED:
        raise Problem(409, "job.not_ended", f"the job is {row['state']}; cancel it first")
    connection.execute("DELETE FROM jobs WHERE id = ?", (id,))
    return row


def counts(connection: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    return dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)
