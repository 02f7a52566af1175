"""The process that reads a stranger's pickle: `python -m sfumato.weights.pickle_child SOURCE TARGET`.

It has little memory and time, starts nothing, and ends with one line of JSON: {} or {"error": ..., "unsafe": name}. Our
reader runs nothing that a file names; the limits are for a file that finds a fault in the reader.
"""

import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path

from sfumato.errors import ModelFileError, UnsafeCheckpointError
from sfumato.weights.pickle_convert import convert

MEMORY = 512 * 1024 * 1024  # bytes beyond what the interpreter has, without the mapped file
SLOWEST = 20_000_000  # bytes a second, of a slow disk
GRACE = 30  # seconds beyond that
NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of Linux' prctl


def limit(size: int) -> None:
    """Take away from this process what reading a file of so many bytes does not need, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[0]) if statm.exists() else (4 << 30) // resource.getpagesize()
    wanted = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + MEMORY + size,
        resource.RLIMIT_CPU: GRACE + size // SLOWEST,
        resource.RLIMIT_FSIZE: 2 * size + 128 * 1024 * 1024,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 16,
    }
    for kind, value in wanted.items():
        with contextlib.suppress(OSError, ValueError):  # an outer limit may be lower already
            resource.setrlimit(kind, (value, value))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def main() -> None:
    """Convert the file that the arguments name, and say how it went."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    said: dict[str, str] = {}
    try:
        limit(os.stat(source).st_size)
        with target.open("wb") as out:
            convert(source, out)
    except UnsafeCheckpointError as error:
        said = {"error": str(error), "unsafe": error.name}
    except (ModelFileError, OSError) as error:
        said = {"error": str(error)}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
