"""The pictures on the disk and their rows: a file is whole, flushed and in its place before its row is written."""

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sfumato.server.inside import open_inside
from sfumato.server.problems import Problem
from sfumato.weights.writing import flush

NAMESPACE = uuid.UUID("5f1d2d4c-6c0e-4d2c-9b2d-6f6a1a2b3c4d")  # ours: the same job and place give the same picture
AT_ONCE = 500  # values of one question: SQLite takes a bounded number


def picture_id(job: str, place: int) -> str:
    """The id of a job's picture: the same for every attempt, so that one that was interrupted is replaced."""
    return str(uuid.uuid5(NAMESPACE, f"{job}/{place}"))


class Folders:
    """Where a server's files lie. No name of a file has text of a client in it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.pictures = data / "pictures"
        self.staging = data / "staging"
        self.uploads = data / "uploads"
        self.thumbnails = data / "thumbnails"
        self.tokenizers = data / "tokenizers"
        self.lost = data / "lost+found"

    def make(self) -> None:
        """Make the folders that are not there; what was half written by a process that died goes away."""
        for folder in (self.pictures, self.staging, self.uploads, self.thumbnails, self.tokenizers):
            folder.mkdir(parents=True, exist_ok=True)
        for part in [*self.staging.iterdir(), *self.uploads.glob("*.part"), *self.thumbnails.glob("*.part")]:
            part.unlink(missing_ok=True)

    def publish(self, staged: str, id: str, created: float) -> str:
        """Move a flushed file from the staging folder to its place, for good; returns the place, within `pictures`."""
        day = time.strftime("%Y-%m-%d", time.gmtime(created))
        folder = self.pictures / day
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            flush(self.pictures)
        os.replace(self.staging / Path(staged).name, folder / f"{id}.png")
        flush(folder)
        return f"{day}/{id}.png"

    def open(self, path: Path) -> BinaryIO:
        """A file of ours, which the caller closes. Raises Problem 410 if it is not there, or a link."""
        try:
            return open_inside(self.data, path)
        except OSError:
            raise Problem(410, "picture.gone", "the picture's file is not there any more") from None

    def thumbnail(self, picture: BinaryIO, id: str, size: int) -> Path:
        """A WebP within a square of the next power of two above `size`, made when it is first asked for."""
        side = 1 << max(size - 1, 1).bit_length()
        place = self.thumbnails / f"{id}-{side}.webp"
        if not place.is_file():
            from PIL import Image

            with Image.open(picture, formats=("PNG",)) as opened:
                small = opened.convert("RGB")
            small.thumbnail((side, side))
            self._make(place, lambda aside: small.save(aside, "WEBP", quality=85))
        return place

    def converted(self, picture: BinaryIO, id: str, format: str) -> Path:
        """The picture as JPEG or WebP, with its metadata, made when it is first asked for."""
        place = self.thumbnails / f"{id}.{format}"
        if not place.is_file():
            from PIL import Image

            from sfumato.metadata import read_texts, save

            with Image.open(picture, formats=("PNG",)) as opened:
                opened.load()
                plain = opened.convert("RGB")
                plain.info.update(read_texts(opened))
            self._make(place, lambda aside: save(plain, aside, overwrite=True))
        return place

    def _make(self, place: Path, write: Callable[[Path], object]) -> None:
        """A file that can be made again at any time: whole or not there, but not flushed."""
        aside = place.with_name(f"{uuid.uuid4().hex}{place.suffix}")
        try:
            write(aside)
            os.replace(aside, place)
        finally:
            aside.unlink(missing_ok=True)

    def all_pictures(self) -> Iterator[str]:
        """Every file below `pictures`, as a row names it."""
        with os.scandir(self.pictures) as days:
            for day in days:
                if day.is_dir(follow_symlinks=False):
                    with os.scandir(day.path) as files:
                        yield from (f"{day.name}/{each.name}" for each in files)
                else:
                    yield day.name

    def set_apart(self, known: set[str]) -> list[str]:
        """Move pictures without a row to lost+found; nothing is deleted."""
        found = [name for name in self.all_pictures() if name not in known]
        for name in found:
            self.lost.mkdir(exist_ok=True)
            target = self.lost / f"{int(time.time())}-{name.replace('/', '-')}"
            os.replace(self.pictures / name, target)
        return found


def write_flushed(path: Path, content: bytes) -> Path:
    """Write a file down to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return path


def add_picture(
    connection: sqlite3.Connection, job: str, about: Mapping[str, Any], file: str, now: float, *, keep: bool = True
) -> sqlite3.Row | None:
    """The row of a published picture, in the bin unless it is to be kept; None if this job has this picture already."""
    row: sqlite3.Row | None = connection.execute(
        """INSERT INTO pictures (id, job, place, sha256, width, height, seed, prompt, search, created, deleted, file,
                                 record)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING *""",
        (
            picture_id(job, about["index"]),
            job,
            about["index"],
            f"sha256:{about['sha256']}",
            about["width"],
            about["height"],
            str(about["seed"]),
            about["prompt"],
            about["prompt"].lower(),
            now,
            None if keep else now,
            file,
            json.dumps(about["record"]),
        ),
    ).fetchone()
    return row


def get_picture(connection: sqlite3.Connection, id: str) -> sqlite3.Row:
    """A picture. Raises Problem 404."""
    row: sqlite3.Row | None = connection.execute("SELECT * FROM pictures WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise Problem(404, "picture.unknown", "there is no such picture")
    return row


def pictures_of_jobs(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, list[sqlite3.Row]]:
    """The pictures of each of these jobs, in the order in which they were drawn."""
    found: dict[str, list[sqlite3.Row]] = {id: [] for id in ids}
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(
            f"SELECT * FROM pictures WHERE job IN ({marks}) ORDER BY place",  # noqa: S608 - question marks
            some,
        )
        for row in rows:
            found[row["job"]].append(row)
    return found


def search_pictures(
    connection: sqlite3.Connection,
    *,
    words: str,
    favourite: bool | None,
    deleted: bool,
    job: str | None,
    limit: int,
    before: int | None,
) -> tuple[list[sqlite3.Row], int | None, int]:
    """Pictures, newest first; where the next page begins; how many there are in all."""
    where, values = [f"deleted IS {'NOT ' if deleted else ''}NULL"], []
    for word in words.lower().split():
        where.append("instr(search, ?)")
        values.append(word)
    if favourite is not None:
        where.append(f"favourite = {int(favourite)}")
    if job is not None:
        where.append("job = ?")
        values.append(job)
    condition = " AND ".join(where)
    total = connection.execute(f"SELECT count(*) FROM pictures WHERE {condition}", values).fetchone()[0]  # noqa: S608
    if before is not None:
        condition += f" AND seq < {before}"
    rows = connection.execute(
        f"SELECT * FROM pictures WHERE {condition} ORDER BY seq DESC LIMIT ?",  # noqa: S608
        (*values, limit + 1),
    ).fetchall()
    return list(rows[:limit]), rows[limit - 1]["seq"] if len(rows) > limit else None, total


def change_picture(
    connection: sqlite3.Connection, id: str, *, favourite: bool | None = None, deleted: float | None = None
) -> sqlite3.Row:
    """Mark a picture, put it into the bin (`deleted`, a time) or take it out (0). Raises Problem 404."""
    get_picture(connection, id)
    if favourite is not None:
        connection.execute("UPDATE pictures SET favourite = ? WHERE id = ?", (int(favourite), id))
    if deleted is not None:
        connection.execute("UPDATE pictures SET deleted = ? WHERE id = ?", (deleted or None, id))
    return get_picture(connection, id)
