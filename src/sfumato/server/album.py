"""The pictures of a server: its gallery, and what was handed in."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from sfumato.request import ResizeMode, checked_options
from sfumato.server import gallery
from sfumato.server.broker import Broker
from sfumato.server.database import Database, DiskFullError
from sfumato.server.gallery import Folders
from sfumato.server.intake import Intake, settle
from sfumato.server.problems import Problem
from sfumato.server.settings import Settings
from sfumato.server.values import Picture, Reading, Upload
from sfumato.server.views import picture_of


class Album:
    """The half of a service that is about pictures."""

    settings: Settings
    folders: Folders
    database: Database
    broker: Broker
    intake: Intake

    def pictures(
        self,
        *,
        search: str = "",
        favourite: bool | None = None,
        deleted: bool = False,
        job: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> tuple[list[Picture], int | None, int]:
        """The gallery, newest first; the cursor of the next page; how many there are."""
        with self.database.reading() as connection:
            rows, following, total = gallery.search_pictures(
                connection, words=search, favourite=favourite, deleted=deleted, job=job, limit=limit, before=before
            )
        return [picture_of(row) for row in rows], following, total

    def picture(self, id: str) -> Picture:
        """A picture with its record. Raises Problem 404."""
        with self.database.reading() as connection:
            row = gallery.get_picture(connection, id)
        return picture_of(row).model_copy(update={"record": json.loads(row["record"])})

    def change_picture(self, id: str, *, favourite: bool | None = None, deleted: bool | None = None) -> Picture:
        """Mark a picture, put it into the bin or take it out."""
        when = None if deleted is None else time.time() if deleted else 0.0
        row = self.database.change(
            lambda connection: gallery.change_picture(connection, id, favourite=favourite, deleted=when)
        )
        found = picture_of(row)
        if deleted:
            self.broker.publish("deleted", {"picture": id}, found.job)
        else:
            self.broker.publish("picture", found.model_dump(), found.job)
        return found

    def open_picture(self, id: str, format: str = "png") -> BinaryIO:
        """A picture's file with its metadata, for the caller to close; other formats are made when first asked for.

        Raises Problem 404 or 410.
        """
        with self.database.reading() as connection:
            row = gallery.get_picture(connection, id)
        file = self.folders.open(self.folders.pictures / row["file"])
        if format == "png":
            return file
        with file:
            return self.folders.open(self.folders.converted(file, id, format))

    def open_thumbnail(self, id: str, size: int) -> BinaryIO:
        """A picture's thumbnail, for the caller to close; made when first asked for. Raises Problem 404 or 410."""
        with self.open_picture(id) as file:
            return self.folders.open(self.folders.thumbnail(file, id, size))

    def picture_bytes(self, id: str, format: str = "png") -> bytes:
        """A picture's file, with its metadata. Raises Problem 404 or 410."""
        with self.open_picture(id, format) as file:
            return file.read()

    def add_upload(self, content: bytes) -> Upload:
        """Keep a picture; its `id` may stand as `image` or `mask` of a request. Raises Problem for what is none."""
        self.check_room()
        decoded = self.intake.decode(content)
        shape = f"{decoded.mode} {decoded.width}x{decoded.height}"
        try:
            with self.database.reading() as connection:
                same = connection.execute(
                    "SELECT * FROM uploads WHERE id = ?", (f"sha256:{decoded.pixels}",)
                ).fetchone()
            name = decoded.pixels
            if same is not None and shape != f"{same['mode']} {same['width']}x{same['height']}":
                name = hashlib.sha256(f"{decoded.pixels} {shape}".encode()).hexdigest()  # as a black square and strip
            settle(decoded, f"{name}.png")
        finally:
            decoded.place.unlink(missing_ok=True)
        reading = None if decoded.reading is None else json.dumps(decoded.reading)
        values = (f"sha256:{name}", decoded.pixels, decoded.width, decoded.height, decoded.mode, f"{name}.png", reading)
        self.database.change(
            lambda connection: connection.execute(
                """INSERT INTO uploads (id, pixels, width, height, mode, file, reading, created)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET reading = excluded.reading""",
                (*values, time.time()),
            )
        )
        metadata = None if decoded.reading is None else Reading(**decoded.reading)
        return Upload(id=f"sha256:{name}", width=decoded.width, height=decoded.height, metadata=metadata)

    def read(self, content: bytes) -> Reading:
        """What a picture's metadata says."""
        return Reading(**(self.intake.read(content) or {}))

    def seen(
        self,
        content: bytes,
        preprocessor: str,
        options: Mapping[str, float],
        *,
        size: tuple[int, int] | None = None,
        resize: ResizeMode = "crop",
    ) -> bytes:
        """What a control network sees of a picture, as a PNG, made in the child that decodes; nothing of it is kept.

        `size`: the width and height in pixels that the picture takes first. Raises RequestError and Problem.
        """
        wanted = {"preprocessor": preprocessor, "options": checked_options(preprocessor, options)}
        made = self.intake.decode(content, wanted | {"size": size, "resize": resize})
        try:
            return made.place.read_bytes()
        finally:
            made.place.unlink()

    def open_pixels(self, id: str) -> BinaryIO:
        """The file of an upload or a picture by its pixels, for the caller to close. Raises Problem 404 or 410."""
        return self.folders.open(self.pixels_place(id)[0])

    def pixels_bytes(self, id: str) -> bytes:
        """What is in the file of an upload or a picture by its pixels. Raises Problem 404 or 410."""
        with self.open_pixels(id) as file:
            return file.read()

    def pixels_place(self, id: str) -> tuple[Path, tuple[int, int]]:
        """Where an upload or a picture lies, by its pixels, and its size. Raises Problem 404, and 410 if it does not.

        What is to be read of it is opened by `open_inside`.
        """
        with self.database.reading() as connection:
            found = connection.execute(
                "SELECT 'u' AS kind, file, width, height FROM uploads WHERE id = ?1 "
                "UNION ALL SELECT 'p', file, width, height FROM pictures WHERE sha256 = ?1 LIMIT 1",
                (id,),
            ).fetchone()
        if found is None:
            raise Problem(404, "upload.unknown", "there is no such picture; upload it first")
        folder = self.folders.uploads if found["kind"] == "u" else self.folders.pictures
        self.folders.open(folder / found["file"]).close()
        return folder / found["file"], (found["width"], found["height"])

    def check_room(self) -> None:
        if shutil.disk_usage(self.settings.data).free < self.settings.limits.reserve:
            raise DiskFullError("there is no room on the disk for more pictures; free some")
