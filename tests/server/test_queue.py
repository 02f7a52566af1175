"""The queue against a model of it, and its rules one by one."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from sfumato.server import queue as jobs
from sfumato.server.database import Database, DataFolderError, hold, open_database
from sfumato.server.problems import Problem
from sfumato.server.queue import NewJob
from sfumato.server.schema import MIGRATIONS

BOOT = "this boot"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_database(tmp_path / "queue.sqlite")
    yield opened
    opened.close()


def put(connection: sqlite3.Connection, id: str, client: str = "a", priority: int = 0, **more: Any) -> sqlite3.Row:
    new = NewJob(
        id=id, kind="draw", title=id, api="native", client=client, priority=priority, request={"prompt": id}, **more
    )
    return jobs.add(connection, new, 0.0, most=500, most_of_client=400)


def take(connection: sqlite3.Connection, owner: str = BOOT) -> sqlite3.Row | None:
    return jobs.claim(connection, owner, 1.0, 60.0)


def test_clients_take_turns_and_priority_comes_before(connection: sqlite3.Connection) -> None:
    for number in range(300):
        put(connection, f"a{number}", client="a")
    put(connection, "b0", client="b")
    put(connection, "b1", client="b")
    put(connection, "urgent", client="a", priority=1)
    expected = [row["id"] for row in jobs.waiting(connection)]
    taken = [row["id"] for _ in range(6) if (row := take(connection))]
    assert taken[0] == "urgent"
    assert set(taken[1:4]) >= {"b0", "a0"}  # the second client's first job starts within two jobs' time
    assert taken == expected[:6]


def test_a_job_comes_before_another_or_gets_another_priority(connection: sqlite3.Connection) -> None:
    for name in "pqrs":
        put(connection, name)
    jobs.move_before(connection, "s", "q")
    jobs.move_before(connection, "r", "p")
    assert [row["id"] for row in jobs.waiting(connection)] == ["r", "p", "s", "q"]
    jobs.change_priority(connection, "q", 5)
    assert [row["id"] for row in jobs.waiting(connection)] == ["q", "r", "p", "s"]
    take(connection)
    with pytest.raises(Problem, match="running"):
        jobs.move_before(connection, "q", "p")


def test_one_key_makes_one_job_and_refuses_another_body(connection: sqlite3.Connection) -> None:
    first = put(connection, "p", key="k", body="x")
    assert put(connection, "q", key="k", body="x")["id"] == first["id"]
    with pytest.raises(Problem) as caught:
        put(connection, "r", key="k", body="y")
    assert caught.value.status == 409
    assert connection.execute("SELECT count(*) FROM jobs").fetchone()[0] == 1


def test_a_full_queue_refuses_and_keeps_nothing(connection: sqlite3.Connection) -> None:
    new = NewJob(id="p", kind="draw", title="", api="", client="a", priority=0, request={})
    put(connection, "q", client="a")
    for most, of_client in ((1, 9), (9, 1)):
        with pytest.raises(Problem) as caught:
            jobs.add(connection, new, 0.0, most=most, most_of_client=of_client)
        assert (caught.value.status, caught.value.retry_after) == (429, 5)
    assert len(jobs.waiting(connection)) == 1


def test_what_an_older_attempt_or_another_boot_reports_changes_nothing(connection: sqlite3.Connection) -> None:
    put(connection, "p")
    first = take(connection)
    assert first is not None
    jobs.give_back(connection, "p", first["attempt"], BOOT, 2.0, counted=True, most=3)
    second = take(connection)
    assert second is not None and second["attempt"] == 2
    assert not jobs.holds(connection, "p", 1, BOOT)
    assert jobs.end(connection, "p", 1, BOOT, 3.0, state="done") is None
    assert jobs.end(connection, "p", 2, "another boot", 3.0, state="done") is None
    ended = jobs.end(connection, "p", 2, BOOT, 3.0, state="done")
    assert ended is not None and ended["state"] == "done"
    assert jobs.end(connection, "p", 2, BOOT, 3.0, state="failed") is None


@pytest.mark.parametrize("counted", [True, False])
def test_three_attempts_that_died_are_enough_and_orderly_ones_do_not_count(
    connection: sqlite3.Connection, counted: bool
) -> None:
    put(connection, "p")
    for _ in range(3):
        row = take(connection)
        assert row is not None
        row = jobs.give_back(connection, "p", row["attempt"], BOOT, 2.0, counted=counted, most=3)
    assert row["state"] == ("failed" if counted else "queued")
    assert ("worker_crashed" in (row["error"] or "")) is counted
    assert row["attempt"] == 3


def test_after_a_start_what_another_boot_ran_waits_again_where_it_was(connection: sqlite3.Connection) -> None:
    put(connection, "p")
    put(connection, "q")
    take(connection, owner="an earlier boot")
    [row] = jobs.recover(connection, BOOT, 5.0, most=3)
    assert (row["id"], row["state"]) == ("p", "queued")
    assert [each["id"] for each in jobs.waiting(connection)] == ["p", "q"]
    assert jobs.recover(connection, BOOT, 5.0, most=3) == []


def test_a_job_that_was_cancelled_while_it_ran_is_not_run_again(connection: sqlite3.Connection) -> None:
    put(connection, "p")
    take(connection, owner="an earlier boot")
    jobs.cancel(connection, "p", 2.0)
    [row] = jobs.recover(connection, BOOT, 5.0, most=3)
    assert row["state"] == "cancelled"
    assert take(connection) is None


def test_changes_that_wait_together_fail_alone(tmp_path: Path) -> None:
    database = Database(tmp_path / "queue.sqlite")
    database.change(lambda connection: put(connection, "p"))
    with pytest.raises(sqlite3.IntegrityError):
        database.change(lambda connection: put(connection, "p"))
    with pytest.raises(Problem):
        database.change(lambda connection: jobs.get(connection, "nothing"))
    database.change(lambda connection: put(connection, "q"))
    with database.reading() as connection:
        assert len(jobs.waiting(connection)) == 2
    database.close()


def test_a_change_after_the_end_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    database = Database(tmp_path / "queue.sqlite")
    database.close()
    with pytest.raises(DataFolderError, match="closed"):
        database.change(lambda connection: None)


def test_a_folder_belongs_to_one_server(tmp_path: Path) -> None:
    hold(tmp_path)
    with pytest.raises(DataFolderError, match="in use by another server"):
        hold(tmp_path)


def test_the_database_is_written_for_process_death(connection: sqlite3.Connection) -> None:
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL: each commit is flushed
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)


def test_nobody_else_can_use_the_database_meanwhile(tmp_path: Path) -> None:
    opened = open_database(tmp_path / "queue.sqlite")
    with pytest.raises(DataFolderError, match="locked"):
        open_database(tmp_path / "queue.sqlite")
    other = sqlite3.connect(tmp_path / "queue.sqlite", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT count(*) FROM jobs")
    other.close()
    assert not list(tmp_path.glob("*-shm"))
    opened.close()
    assert [path.name for path in tmp_path.iterdir()] == ["queue.sqlite"]  # all is in one file in the end


def test_a_database_with_a_rollback_journal_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    open_database(path).close()
    before = sqlite3.connect(path)
    before.execute("PRAGMA journal_mode=TRUNCATE")
    before.execute("INSERT INTO facts (key, value) VALUES ('a', 'b')")
    before.commit()
    before.close()
    after = open_database(path)
    assert after.execute("SELECT value FROM facts WHERE key = 'a'").fetchone()[0] == "b"
    assert after.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    after.close()


def test_a_newer_or_a_damaged_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    opened = open_database(path)
    opened.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    opened.close()
    with pytest.raises(DataFolderError, match="newer sfumato"):
        open_database(path)
    path.write_bytes(b"not a database, but some text that is long enough to be one" * 100)
    with pytest.raises(DataFolderError, match="cannot be used"):
        open_database(path)
    assert path.read_bytes().startswith(b"not a database")


class Model(RuleBasedStateMachine):
    """Any order of events, beside a dictionary that knows what must come of them."""

    names = Bundle("names")

    @initialize()
    def begin(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        for step in MIGRATIONS:
            self.connection.executescript(step)
        self.states: dict[str, str] = {}
        self.tries: dict[str, int] = {}
        self.held: tuple[str, int] | None = None
        self.boot = 0
        self.count = 0

    @rule(target=names, client=st.sampled_from("abc"), priority=st.integers(0, 1))
    def add(self, client: str, priority: int) -> str:
        name = f"j{self.count}"
        self.count += 1
        put(self.connection, name, client, priority)
        self.states[name], self.tries[name] = "queued", 0
        return name

    @rule()
    def claim(self) -> None:
        if self.held is not None:
            return
        expected = [row["id"] for row in jobs.waiting(self.connection)]
        row = take(self.connection, str(self.boot))
        assert (row["id"] if row else None) == (expected[0] if expected else None)
        if row:
            self.held = (row["id"], row["attempt"])
            self.states[row["id"]] = "running"
            self.tries[row["id"]] += 1

    @rule(state=st.sampled_from(["done", "failed", "cancelled"]))
    def end(self, state: str) -> None:
        if self.held is None:
            return
        name, attempt = self.held
        assert jobs.end(self.connection, name, attempt, str(self.boot), 1.0, state=state) is not None
        self.states[name], self.held = state, None

    @rule(counted=st.booleans())
    def give_back(self, counted: bool) -> None:
        if self.held is None:
            return
        name, attempt = self.held
        row = jobs.give_back(self.connection, name, attempt, str(self.boot), 1.0, counted=counted, most=3)
        self.tries[name] -= 0 if counted else 1
        self._came_back(name, row["state"], counted)
        self.held = None

    @rule()
    def crash(self) -> None:
        self.boot += 1
        rows = jobs.recover(self.connection, str(self.boot), 1.0, most=3)
        assert [row["id"] for row in rows] == ([self.held[0]] if self.held else [])
        if self.held:
            self._came_back(self.held[0], rows[0]["state"], True)
        self.held = None

    @rule(name=names)
    def cancel(self, name: str) -> None:
        if name not in self.states:
            return
        jobs.cancel(self.connection, name, 1.0)
        if self.states[name] == "queued":
            self.states[name] = "cancelled"
        elif self.states[name] == "running":
            self.states[name] = "cancelling"

    @rule(name=consumes(names))
    def forget(self, name: str) -> None:
        if self.states[name] in ("done", "failed", "cancelled"):
            jobs.forget(self.connection, name)
            del self.states[name]

    def _came_back(self, name: str, state: str, counted: bool) -> None:
        wanted = "cancelled" if self.states[name] == "cancelling" else "queued"
        if counted and self.tries[name] >= 3 and wanted == "queued":
            wanted = "failed"
        assert state == wanted
        self.states[name] = wanted

    @invariant()
    def nothing_is_lost_or_twice(self) -> None:
        if not hasattr(self, "connection"):
            return
        found = dict(self.connection.execute("SELECT id, state FROM jobs").fetchall())
        assert found == {name: "running" if s == "cancelling" else s for name, s in self.states.items()}


TestAnyOrder = Model.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
