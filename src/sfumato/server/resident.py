"""How much memory the server and its worker have, and how much the worker may have."""

import os
from pathlib import Path

from sfumato.memory.sizes import available


def memory(pid: int | None) -> dict[str, int | None]:
    """The resident bytes of this process and of the worker, where the system tells (Linux)."""
    return {"server": resident("self"), "worker": None if pid is None else resident(str(pid))}


def resident(process: str) -> int | None:
    """The resident bytes of a process, where the system tells."""
    try:
        fields = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def room(pid: int | None, device: str | None) -> int | None:
    """The bytes that a worker may have in all: those it has, and what is free beside it.

    None on a GPU, whose memory is planned when it is drawn with, and where the system does not tell. Without a worker,
    or while it does not say where it computes, it is taken to be about to start, on the CPU.
    """
    free = available()
    if free is None or device not in (None, "cpu"):
        return None
    return free + (0 if pid is None else resident(str(pid)) or 0)
