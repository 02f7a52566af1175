"""One job from its acceptance to its end, in a process that may be killed at any system call: `commit_once.py DATA`."""

import hashlib
import io
import sys
import time
from pathlib import Path

from PIL import Image
from stub import pixels

from sfumato.server import gallery
from sfumato.server import queue as jobs
from sfumato.server.database import Database
from sfumato.server.gallery import Folders
from sfumato.server.queue import NewJob

ID = "00000000-0000-4000-8000-000000000001"


def accept(database: Database) -> None:
    new = NewJob(
        id=ID, kind="draw", title="t", api="native", client="c", priority=0, request={"prompt": "p"}, key="k", body="b"
    )
    database.change(lambda connection: jobs.add(connection, new, time.time(), most=9, most_of_client=9))


def draw(database: Database, folders: Folders, boot: str) -> None:
    """As the runner and its worker do it."""
    row = database.change(lambda connection: jobs.claim(connection, boot, time.time(), 60.0))
    if row is None:
        return
    picture = Image.frombytes("RGB", (16, 16), pixels("p", 1, 16, 16))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    name = f"{row['id']}-{row['attempt']}-0.png"
    gallery.write_flushed(folders.staging / name, buffer.getvalue())
    file = folders.publish(name, gallery.picture_id(ID, 0), 1_700_000_000.0)
    about = {"index": 0, "seed": 1, "width": 16, "height": 16, "prompt": "p", "record": {}}
    about["sha256"] = hashlib.sha256(picture.tobytes()).hexdigest()
    database.change(lambda connection: gallery.add_picture(connection, ID, about, file, time.time()))
    database.change(lambda connection: jobs.end(connection, ID, row["attempt"], boot, time.time(), state="done"))


def main(data: Path) -> None:
    folders = Folders(data)
    folders.make()
    database = Database(data / "sfumato.sqlite")
    print("ready", flush=True)
    sys.stdin.readline()
    accept(database)
    print("accepted", flush=True)
    draw(database, folders, "this boot")
    database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
