"""Rows of the database as the API tells them."""

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfumato.server.values import Job, ModelCard, Picture, Progress
from sfumato.weights.known import Known

PREFIX = "/sfumato/v1"


def job_of(row: sqlite3.Row, pictures: list[Picture], progress: Progress | None, position: int | None) -> Job:
    """A row as the API tells it."""
    return Job(
        id=row["id"],
        kind=row["kind"],
        state=row["state"],
        title=row["title"],
        api=row["api"],
        client=row["client"],
        priority=row["priority"],
        position=position,
        request=json.loads(row["request"]),
        created=moment(row["created"]),
        started=None if row["started"] is None else moment(row["started"]),
        ended=None if row["ended"] is None else moment(row["ended"]),
        attempt=row["attempt"],
        cancelling=row["state"] == "running" and bool(row["cancel"]),
        progress=progress if row["state"] == "running" else None,
        pictures=pictures,
        error=None if row["error"] is None else json.loads(row["error"]),
        retry_of=row["retry_of"],
        result=None if row["result"] is None else json.loads(row["result"]),
    )


def picture_of(row: sqlite3.Row) -> Picture:
    """A row as the API tells it."""
    place = f"{PREFIX}/pictures/{row['id']}"
    return Picture(
        id=row["id"],
        job=row["job"],
        index=row["place"],
        sha256=row["sha256"],
        width=row["width"],
        height=row["height"],
        seed=int(row["seed"]),
        prompt=row["prompt"],
        created=moment(row["created"]),
        favourite=bool(row["favourite"]),
        deleted=row["deleted"] is not None,
        file=f"{place}/file",
        thumbnail=f"{place}/thumbnail",
    )


def moment(seconds: float) -> str:
    """A time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def file_of(known: Known) -> dict[str, Any]:
    """Something beside the models that can be named, and the size of its file in bytes; None for a folder."""
    path = Path(known.place)
    size = path.stat().st_size if path.is_file() else None
    return {"name": known.name, "source": known.kind, "size_bytes": size}


def model_of(model: Known, card: Mapping[str, Any] | None, *, default: bool, loaded: bool) -> ModelCard:
    """A model that can be named, with what was read of it: a card, a problem, or nothing yet."""
    stated: dict[str, Any] = {"name": model.name, "source": model.kind, "default": default}
    if card is None:
        stated |= {"title": model.name, "family": "", "why": "it is being read"}
    elif "problem" in card:
        stated |= {"title": model.name, "family": "", "missing": [card["problem"]]}
    else:
        stated |= {name: card[name] for name in ModelCard.model_fields if name in card and name != "name"}
        stated["loaded"] = loaded
    return ModelCard(**stated)
