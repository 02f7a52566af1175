"""Children that read what strangers made: little memory and time, nothing inherited, and no network where that can be.

The parent starts one with `program` and `environment`; the child calls `give_up` before it looks at a byte. Our readers
run nothing that a file names; the limits are for a file that finds a fault in a reader.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]  # all that a child imports from, beside what is installed
KEPT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH")  # without which no interpreter starts on some systems
NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of Linux' prctl
NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000  # CLONE_NEWNET and CLONE_NEWUSER of Linux' unshare


def program(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a child: without the user's own packages and the current folder."""
    return [sys.executable, "-P", "-s", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """All that a child has of our environment."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {"PATH": os.defpath, **kept, **threads, "PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"}


def give_up(*, memory: int, seconds: int, written: int, files: int) -> None:
    """Give up what this process does not need, as far as the system lets us.

    It keeps `memory` bytes beyond what it has, `seconds` of computing, files of `written` bytes, and `files` open ones.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limits = {
        resource.RLIMIT_AS: address_space() + memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: written,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: files,
    }
    for kind, value in limits.items():
        with contextlib.suppress(OSError, ValueError):  # an outer limit may be lower already
            resource.setrlimit(kind, (value, value))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None, use_errno=True)
            library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
            if library.unshare(NEW_NETWORK) != 0:  # only an administrator may; others can as users of their own
                library.unshare(NEW_USER | NEW_NETWORK)


def address_space() -> int:
    """The bytes of addresses that this process has."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 4 << 30
