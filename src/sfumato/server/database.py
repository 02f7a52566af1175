"""The one connection to the database: changes committed in groups, one owner of the folder, migrations.

Written for process death at any moment: a write-ahead log that is flushed with every commit, which costs one flush
where a rollback journal costs five. Up to SQLite 3.51.2 a reset of the log could corrupt it when two connections wrote
at once: here is one, and `locking_mode=EXCLUSIVE` keeps every other out, of this process and of others. All changes
that wait are committed together, so that a burst of posts costs one flush and not one each.
"""

import contextlib
import errno
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from sfumato.errors import SfumatoError
from sfumato.server.schema import MIGRATIONS
from sfumato.server.spare import Spare
from sfumato.weights.writing import flush

log = logging.getLogger(__name__)

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]
TOGETHER = 64  # changes in one commit, so that the first does not wait for long


class DataFolderError(SfumatoError):
    """The server's folder cannot be used."""


class DiskFullError(SfumatoError):
    """There is no room on the disk for what must be kept."""


def hold(folder: Path) -> int:
    """Take a data folder for this process, as a file descriptor to keep. Raises DataFolderError if another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataFolderError(f"{folder}: cannot be used for the server's data: {error.strerror or error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise DataFolderError(
            f"{folder} is in use by another server. Stop that one, or give this one a folder of its own with --data."
        ) from None
    return handle


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database and bring its tables up to date. Raises DataFolderError if it is damaged or too new."""
    new = not path.exists()
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # before the log is first touched: without shared memory
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        migrate(connection, path, new=new)
    except sqlite3.DatabaseError as error:
        raise DataFolderError(f"{path}: cannot be used as the server's database: {error}") from error
    if new:
        flush(path.parent)
    return connection


def migrate(connection: sqlite3.Connection, path: Path, *, new: bool) -> None:
    """Take the steps that the database has not taken; before, a copy is left beside it."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise DataFolderError(
            f"{path}: was written by a newer sfumato (version {version} of the tables; this one knows "
            f"{len(MIGRATIONS)}). Update sfumato, or use another folder with --data."
        )
    if version == len(MIGRATIONS):
        return
    if not new and version:
        backup = path.with_name(f"{path.stem}-before-{version + 1}.sqlite")
        backup.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(backup),))
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE;{MIGRATIONS[number]};PRAGMA user_version={number + 1};COMMIT;")


class Database:
    """Runs changes in a thread of its own and reads in the caller's. Every method may be called from any thread."""

    def __init__(self, path: Path, spare: Spare | None = None) -> None:
        self._spare = spare or Spare(path.with_name("spare"), 0)
        self.connection = open_database(path)
        self._lock = threading.Lock()
        self._door = threading.Lock()  # not the other, which a flush of the disk holds
        self._closed = False
        self._waiting: queue.SimpleQueue[tuple[Change[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="database", daemon=True)
        self._thread.start()

    def change(self, change: Change[T]) -> T:
        """The result of a change, once it is on the disk; what it raises undoes it alone.

        Raises DiskFullError if there is no room, and DataFolderError after `close`; nothing is changed then.
        """
        future: Future[T] = Future()
        with self._door:
            if self._closed:
                raise DataFolderError("the server's database is closed; nothing more is kept")
            self._waiting.put((change, future))
        return future.result()

    def record(self, change: Change[T]) -> T:
        """As `change`, for what has happened and must be kept: where there is no room, the spare's is used up."""
        try:
            return self.change(change)
        except DiskFullError:
            if not self._spare.let_go():
                raise
            return self.change(change)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, between two commits."""
        with self._lock:
            yield self.connection

    def close(self) -> None:
        """Carry out what waits, and let go."""
        with self._door:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()
        self.connection.close()

    def _work(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < TOGETHER and group[-1] is not None:
                try:
                    group.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            with self._lock:
                self._commit([each for each in group if each is not None])
            if group[-1] is None:
                return

    def _commit(self, group: list[tuple[Change[Any], Future[Any]]]) -> None:
        """All changes in one transaction, each undone alone if it fails; nobody is told before it is on the disk."""
        if not group:
            return
        told: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            for change, future in group:
                self.connection.execute("SAVEPOINT one")
                try:
                    told.append((future, change(self.connection), None))
                except Exception as error:
                    if not self.connection.in_transaction:  # SQLite itself has undone everything: no room, or worse
                        raise
                    self.connection.execute("ROLLBACK TO one")
                    told.append((future, None, error))
                self.connection.execute("RELEASE one")
            self.connection.execute("COMMIT")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            failure = as_ours(error)
            told = [(future, None, failure) for _, future in group]
        for future, result, failed in told:
            if failed is None:
                future.set_result(result)
            else:
                future.set_exception(as_ours(failed))


def as_ours(error: Exception) -> Exception:
    """The errors of a full disk, SQLite's and the system's, as ours; others as they are."""
    full = isinstance(error, sqlite3.OperationalError) and ("full" in str(error) or "disk I/O" in str(error))
    if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return DiskFullError(f"there is no room on the disk for the server's data ({error}); free some")
    return error
