"""How much memory the server and its worker have, and how much the worker may have."""

from sfumato.memory.sizes import available, resident_of


def memory(pid: int | None) -> dict[str, int | None]:
    """The resident bytes of this process and of the worker, where the system tells (Linux)."""
    return {"server": resident_of("self"), "worker": None if pid is None else resident_of(pid)}


def room(pid: int | None, device: str | None) -> int | None:
    """The bytes that a worker may have in all: those it has, and what is free beside it.

    None on a GPU, whose memory is planned when it is drawn with, and where the system does not tell. Without a worker,
    or while it does not say where it computes, it is taken to be about to start, on the CPU.
    """
    free = available()
    if free is None or device not in (None, "cpu"):
        return None
    return free + (0 if pid is None else resident_of(pid) or 0)
