"""Files below a folder of ours, opened without following a link on the way.

To look whether a path leads out and to open it then would leave a moment to put a link there. What is opened is what
is read and served, whatever becomes of its name.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in its place must not hold us up


def open_inside(folder: Path, path: Path) -> BinaryIO:
    """A file below a folder, for the caller to close. The folder itself may be a link.

    Raises OSError if it is not there, no file, or below a link.
    """
    *folders, name = path.relative_to(folder).parts
    if ".." in (*folders, name):
        raise FileNotFoundError(f"{path} is not below {folder}")
    place = os.open(folder, FOLDER)
    try:
        for each in folders:
            above, place = place, os.open(each, FOLDER | os.O_NOFOLLOW, dir_fd=place)
            os.close(above)
        file = os.open(name, FILE, dir_fd=place)
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(f"{path} is no file")
    return os.fdopen(file, "rb")
