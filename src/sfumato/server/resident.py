"""How much memory the server and its worker have."""

import os
from pathlib import Path


def memory(pid: int | None) -> dict[str, int | None]:
    """The resident bytes of this process and of the worker, where the system tells (Linux)."""

    def resident(process: str) -> int | None:
        try:
            fields = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
        except OSError:
            return None
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    return {"server": resident("self"), "worker": None if pid is None else resident(str(pid))}
