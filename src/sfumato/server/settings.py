"""How a server is set up: one frozen value."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.weights.locate import home

MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes at most; times in seconds, sizes in bytes.

    `queue` and `client_queue` count queued jobs, `rate` and `burst` posts of one client a second.
    `reserve` is kept free on the disk, and `spare` in a file that is let go of when it is full all the same;
    `backlog` is what may wait for a client that reads events slowly.
    """

    body: int = MEBIBYTE
    upload: int = 32 * MEBIBYTE
    json_upload: int = 64 * MEBIBYTE  # bodies that carry pictures as base64, a third longer than they are
    queue: int = 256
    client_queue: int = 64
    rate: float = 20.0
    burst: int = 40
    attempts: int = 3  # of a job whose worker died
    lease: float = 60.0
    stop: float = 25.0  # how long a running job may take to finish at the end
    kill: float = 10.0  # from a cancel to the end of the worker that does not heed it
    silence: float = 600.0  # of a worker that draws: longer is a hang
    start: float = 180.0  # of a worker, until it says hello
    decode: float = 20.0
    describe: float = 300.0
    backlog: int = MEBIBYTE
    events: int = 4096  # that are kept for those who come back
    connections: int = 1024
    reserve: int = 64 * MEBIBYTE
    spare: int = 16 * MEBIBYTE


def default_data() -> Path:
    """Where a server's data lies that was given no folder."""
    return home() / "server"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a server listens, who may use it, where its data lies, and what draws.

    `hosts` are further names (`name` or `name:port`) by which it may be called. `program` runs the worker
    (`program draw`), and describes models (`program describe`); tests put another in its place.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    hosts: tuple[str, ...] = ()
    data: Path = field(default_factory=default_data)
    device: str | None = None
    dtype: str | None = None
    model: str | None = None
    limits: Limits = Limits()
    program: tuple[str, ...] = (sys.executable, "-m", "sfumato.server.worker")
