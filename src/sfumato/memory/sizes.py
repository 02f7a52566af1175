"""Sizes of memory as people write them, and how much there is."""

import os
import re
from pathlib import Path

from sfumato.errors import RequestError

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", re.IGNORECASE)
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def checked_budget(text: str) -> str:
    """Return a budget as it is. Raises RequestError for what is none."""
    if text not in ("auto", "low"):
        parse_size(text)
    return text


def parse_size(text: str) -> int:
    """Return bytes from "2GB" or "1500MiB" (both in powers of 1024). Raises RequestError for what is none."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise RequestError(f"memory is {text!r}; it must be auto, low, or a size such as 4GB", "memory")
    return int(float(found[1]) * 1024 ** UNITS[found[2].lower()])


def resident() -> int:
    """Return what this process has in memory, in bytes; 0 where the system does not tell."""
    return resident_of("self") or 0


def resident_of(process: int | str) -> int | None:
    """Return what a process has in memory, in bytes; None where the system does not tell, or there is none."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def available() -> int | None:
    """Return the memory that is free for this process, in bytes; None where the system does not tell.

    On Linux: what can be had without swapping, or less where a control group limits it.
    """
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", table.read_text())
    if found is None:
        return None
    free = int(found[1]) * 1024
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            limit, taken = (int((root / name).read_text()) for name in (most, used))
        except (OSError, ValueError):  # no such group, or "max"
            continue
        free = min(free, max(limit - taken, 0))
    return free


def least_size(peak: int) -> str:
    """Return a budget, as `parse_size` reads it, in which a peak fits."""
    other = 10 << 20  # bytes by which the next process may begin with more
    return f"{-(-(peak + other) // (50 << 20)) * 50}MB"


def readable_size(size: int) -> str:
    """Return a size for people."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
