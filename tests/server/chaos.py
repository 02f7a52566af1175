"""What must hold of a server's folder whatever was killed when: asked of the disk alone, when no server runs."""

import hashlib
import sqlite3
from pathlib import Path

from PIL import Image


def inspect(data: Path, acknowledged: set[str], *, ended: bool = True) -> dict[str, str]:
    """The state of every job. Fails where an acknowledged one is lost, or a picture is torn, twice or without row."""
    connection = sqlite3.connect(data / "sfumato.sqlite")
    connection.row_factory = sqlite3.Row
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        jobs = {row["id"]: row for row in connection.execute("SELECT * FROM jobs")}
        pictures = connection.execute("SELECT * FROM pictures").fetchall()
    finally:
        connection.close()
    assert acknowledged <= set(jobs), f"lost: {acknowledged - set(jobs)}"
    if ended:
        assert {row["state"] for row in jobs.values()} <= {"done", "failed", "cancelled"}
    assert len({(row["job"], row["place"]) for row in pictures}) == len(pictures)
    for row in pictures:
        with Image.open(data / "pictures" / row["file"]) as opened:
            assert f"sha256:{hashlib.sha256(opened.tobytes()).hexdigest()}" == row["sha256"]
    files = {str(path.relative_to(data / "pictures")) for path in (data / "pictures").rglob("*.png")}
    assert files == {row["file"] for row in pictures}
    with_pictures = {row["job"] for row in pictures}
    assert {id for id, row in jobs.items() if row["state"] == "done"} <= with_pictures
    return {id: row["state"] for id, row in jobs.items()}
