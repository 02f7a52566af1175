"""Room for the worst moment: a file that is let go of when the disk is full, so that what happened can be recorded."""

import errno
import os
import shutil
from pathlib import Path


class Spare:
    """A file of `size` bytes. Of one thread at a time."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    def keep(self) -> None:
        """Have the file, if there is room for twice as much: else it would take what it is there to give."""
        if self._size == 0 or (self._path.exists() and self._path.stat().st_size == self._size):
            return
        if shutil.disk_usage(self._path.parent).free < 2 * self._size:
            return
        try:
            with self._path.open("wb") as file:  # written, because a file with holes keeps nothing
                for start in range(0, self._size, 2**20):
                    file.write(bytes(min(2**20, self._size - start)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def let_go(self) -> bool:
        """Give its room away; was there any?"""
        try:
            there = self._path.stat().st_size > 0
            self._path.unlink()
        except FileNotFoundError:
            return False
        return there
